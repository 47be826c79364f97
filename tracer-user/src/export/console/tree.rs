//! The spans of one trace, as lines.

use std::collections::HashMap;

use super::super::covered::Covered;
use super::layout::{DIM, Palette, WIDTH, duration, guides, shorten, span_line, time_of_day};
use crate::model::{Span, SpanId, printable};

/// Children of one call that are shown; what is beyond is summed up in a line.
const MAX_CHILDREN: usize = 100;

/// Appends the tree of a trace. Calls whose parent is not among the spans stand at the left.
pub fn draw(text: &mut String, palette: Palette, service: &str, spans: &[Span], whole: bool) {
    let indices: HashMap<SpanId, usize> = spans.iter().enumerate().map(|(index, span)| (span.span_id, index)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut roots = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        match span.parent.span_id().and_then(|parent| indices.get(&parent)) {
            Some(parent) => children[*parent].push(index),
            None => roots.push(index),
        }
    }
    roots.sort_by_key(|index| spans[*index].start);
    children.iter_mut().for_each(|list| list.sort_by_key(|index| spans[*index].start));

    let Some(first) = roots.first().map(|root| &spans[*root]) else { return };
    heading(text, palette, service, first, whole);
    let mut more_follow: Vec<bool> = Vec::new();
    // Each entry: what to draw at which level, and whether siblings follow. The last entry is drawn next.
    let mut to_draw: Vec<(Item, usize, bool)> = roots.iter().rev().map(|root| (Item::Span(*root), 0, false)).collect();
    while let Some((item, level, more)) = to_draw.pop() {
        more_follow.truncate(level.saturating_sub(1));
        if level > 0 {
            more_follow.push(more);
        }
        let guides = guides(&more_follow);
        let index = match item {
            Item::Span(index) => index,
            Item::Rest { parent } => {
                rest(text, palette, &guides, children[parent].iter().skip(MAX_CHILDREN).map(|index| &spans[*index]));
                continue;
            }
        };
        let span = &spans[index];
        let own = &children[index];
        let mut inside = Covered::default();
        own.iter().for_each(|child| inside.add(&spans[*child]));
        let self_time = (!own.is_empty()).then(|| span.duration_ns().saturating_sub(inside.within(span)));
        text.push_str(&span_line(palette, &guides, span, self_time, level > 0));
        text.push('\n');
        let has_rest = own.len() > MAX_CHILDREN;
        if has_rest {
            to_draw.push((Item::Rest { parent: index }, level + 1, false));
        }
        let shown = own.len().min(MAX_CHILDREN);
        let drawn = own.iter().take(MAX_CHILDREN).enumerate().rev();
        to_draw.extend(drawn.map(|(place, child)| (Item::Span(*child), level + 1, has_rest || place + 1 < shown)));
    }
    text.push('\n');
}

enum Item {
    Span(usize),
    /// The children of a span that are too many to show.
    Rest {
        parent: usize,
    },
}

fn heading(text: &mut String, palette: Palette, service: &str, first: &Span, whole: bool) {
    let mut heading = format!("{}  {}[{}]", time_of_day(first.start), printable(service), first.process);
    heading.push_str(&format!("  thread {}", first.thread.0));
    if let Some(name) = &first.thread_name {
        heading.push_str(&format!(" {}", printable(name)));
    }
    // What is cut off when it gets long must not be the trace id: people search for it.
    let end = if whole { format!("  trace {}", first.trace_id) } else { format!("  part of trace {}", first.trace_id) };
    let heading = shorten(&heading, WIDTH.saturating_sub(end.chars().count()));
    palette.paint(text, DIM, &format!("{heading}{end}"));
    text.push('\n');
}

fn rest<'span>(text: &mut String, palette: Palette, guides: &str, spans: impl Iterator<Item = &'span Span>) {
    let (count, total) =
        spans.fold((0_u64, 0_u64), |(count, total), span| (count + 1, total.saturating_add(span.duration_ns())));
    text.push_str("  ");
    palette.paint(text, DIM, &format!("{guides}… {count} more calls, {} in all", duration(total)));
    text.push('\n');
}
