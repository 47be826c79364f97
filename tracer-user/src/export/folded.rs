//! Folded stacks: a line for each stack, names separated by `;`, then the nanoseconds spent in it.
//! Source: Brendan Gregg's FlameGraph, the input of `flamegraph.pl`, which inferno, speedscope and others read too.

use super::attribute_limits::shorten_name;
use super::stack_totals::StackTotals;
use crate::model::printable;

/// The lines.
pub fn folded(totals: &StackTotals) -> Vec<u8> {
    // A name must not end a line or a name.
    let names: Vec<String> =
        totals.frames().iter().map(|frame| printable(shorten_name(&frame.name)).replace(';', ":")).collect();
    let mut text = String::new();
    totals.visit(|stack, nanoseconds| {
        for (place, frame) in stack.iter().enumerate() {
            text.push_str(if place == 0 { "" } else { ";" });
            text.push_str(&names[*frame]);
        }
        text.push_str(&format!(" {nanoseconds}\n"));
    });
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::model::Parent;

    #[test]
    fn a_line_is_a_stack_and_its_time() {
        let mut totals = StackTotals::default();
        samples::python_spans().iter().for_each(|span| totals.span(span));
        let hostile = samples::function(1, "Model;x\n1 2\u{1b}", "predict");
        totals.span(&samples::span(9, Parent::Root, 0, Some(&hostile), (0, 1)));
        let text = String::from_utf8(folded(&totals)).expect("text");
        assert_eq!(
            text,
            "Pipeline.predict 40000\n\
             Pipeline.predict;StandardScaler.transform 200000\n\
             Pipeline.predict;FeatureUnion.transform 40000\n\
             Pipeline.predict;FeatureUnion.transform;PCA.transform 460000\n\
             Pipeline.predict;FeatureUnion.transform;SelectKBest.transform 510000\n\
             Pipeline.predict;FeatureUnion.transform;SelectKBest.transform;TransformerMixin.transform 40000\n\
             Pipeline.predict;RandomForestClassifier.predict 370000\n\
             Model:x\\n1 2\\u{1b}.predict 1000\n"
        );
    }
}
