//! Classes that no map is about and that look like models, for the listing of `symbols`: with the map that names them.

use std::io::Write;

use super::print::line;
use crate::model::{MODEL_METHODS, RuntimeCoverage, UnnamedClass};
use crate::symbol_map::yaml_of_classes;

/// The classes of all processes that were looked at.
pub struct Unnamed {
    classes: Vec<UnnamedClass>,
    /// A symbol map about all of them.
    pub yaml: String,
}

/// The classes; `None` if there are none.
pub fn unnamed(python: &[RuntimeCoverage]) -> Option<Unnamed> {
    // Each worker of a server has them.
    let mut classes: Vec<UnnamedClass> = Vec::new();
    for class in python.iter().flat_map(|coverage| &coverage.unnamed_classes) {
        match classes.iter_mut().find(|known| known.class == class.class) {
            Some(known) => known.objects += class.objects,
            None => classes.push(class.clone()),
        }
    }
    if classes.is_empty() {
        return None;
    }
    let names: Vec<&str> = classes.iter().map(|class| &*class.class).collect();
    let has = |method: &&str| classes.iter().any(|class| class.methods.contains(method));
    let methods: Vec<&str> = MODEL_METHODS.into_iter().filter(has).collect();
    let yaml = yaml_of_classes(&names, &methods);
    Some(Unnamed { classes, yaml })
}

impl Unnamed {
    /// The classes under a heading of their own, and the map.
    pub fn write(&self, output: &mut impl Write) -> std::io::Result<()> {
        line(
            output,
            format_args!("not traced, no map names these classes of the application, which have live objects:"),
        )?;
        let widest = self.classes.iter().map(|class| class.class.len()).max().unwrap_or(0).min(44);
        for UnnamedClass { class, methods, objects } in &self.classes {
            let objects = if *objects == 1 { "1 object".to_owned() } else { format!("{objects} objects") };
            line(output, format_args!("  {class:<widest$}  {}  ({objects})", methods.join(", ")))?;
        }
        line(
            output,
            format_args!(
                "  `--class NAME` traces one of them, `--all-classes` all, and so does this map with `--map FILE`:"
            ),
        )?;
        self.yaml.lines().try_for_each(|text| line(output, format_args!("    {text}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(classes: &[(&str, &[&'static str], u32)]) -> RuntimeCoverage {
        let class = |(name, methods, objects): &(&str, &[&'static str], u32)| UnnamedClass {
            class: (*name).into(),
            methods: methods.to_vec(),
            objects: *objects,
        };
        RuntimeCoverage {
            process: 7,
            interpreter: "CPython 3.12.1".into(),
            slots: 4,
            unnamed_classes: classes.iter().map(class).collect(),
            ..RuntimeCoverage::default()
        }
    }

    #[test]
    fn the_map_names_each_class_once() {
        assert!(unnamed(&[coverage(&[])]).is_none());
        let worker = || coverage(&[("app.PriceModel", &["predict", "__call__"], 1), ("app.Ranker", &["encode"], 20)]);
        let python = [worker(), worker()];
        let unnamed = unnamed(&python).expect("there are some");
        let mut page = Vec::new();
        unnamed.write(&mut page).expect("memory");
        let page = String::from_utf8(page).expect("text");
        assert!(page.contains("  app.Ranker      encode  (40 objects)\n"), "{page}");
        assert_eq!(page.matches("  app.PriceModel  predict, __call__  (2 objects)\n").count(), 1, "{page}");
        assert!(
            page.ends_with("    bases: [app.PriceModel, app.Ranker]\n    methods: [predict, encode, __call__]\n"),
            "{page}"
        );
    }
}
