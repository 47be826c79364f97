//! The options that ask for classes without a map, and what is said of classes that could be asked for.

use std::sync::Arc;

use clap::Args;

use super::exit::UsageError;
use super::print::tell;
use crate::model::{ClassesInSight, SymbolMap, UnnamedClass, process_numbers};
use crate::symbol_map::{AskedClasses, nearest};

/// Classes that are named in the sentence at the start.
const MOST_NAMED: usize = 3;

/// Options that `attach`, `run` and `symbols` share.
#[derive(Clone, Debug, Default, Args)]
pub struct ClassOptions {
    /// Trace this Python class and those derived from it without a map, e.g. app.PriceModel (several, or with commas)
    #[arg(long = "class", value_name = "CLASS", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Which methods of these classes: by default predict, generate, infer, transform, encode, forward and __call__
    #[arg(long, value_name = "METHODS", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Trace every Python class of the application's own modules that has such a method and that no map is about
    #[arg(long)]
    pub all_classes: bool,
}

impl ClassOptions {
    /// The same as maps ask for it.
    pub fn asked(&self) -> AskedClasses {
        let trimmed = |names: &[String]| names.iter().map(|name| name.trim().to_owned()).collect();
        AskedClasses { classes: trimmed(&self.classes), methods: trimmed(&self.methods), all: self.all_classes }
    }

    /// Refuses what cannot be a name.
    pub fn maps(&self) -> Result<Vec<SymbolMap>, UsageError> {
        self.asked().maps().map_err(|problem| UsageError(problem.to_string()))
    }

    /// Says which named classes are not there yet but have a likely neighbour, and which classes could be traced besides.
    pub fn tell_of(&self, in_sight: &[ClassesInSight]) {
        self.sentences(in_sight).iter().for_each(|sentence| tell(sentence));
    }

    fn sentences(&self, in_sight: &[ClassesInSight]) -> Vec<String> {
        let mut sentences = Vec::new();
        let is = |name: &str, path: &str| path == name || path.ends_with(&format!(".{name}"));
        let processes: Vec<u32> = in_sight.iter().map(|sight| sight.process).collect();
        let traced = || in_sight.iter().flat_map(|sight| &sight.traced).map(|path| &**path);
        let unnamed = || in_sight.iter().flat_map(|sight| &sight.unnamed).map(|class| &*class.class);
        for name in &self.classes {
            if !traced().any(|path| is(name, path))
                && let Some(near) = nearest(name, traced().chain(unnamed()).filter(|path| !is(name, path)))
            {
                let (which, have) = (process_numbers(&processes), if processes.len() == 1 { "has" } else { "have" });
                sentences.push(format!("{which} {have} no class {name} so far; did you mean `--class {near}`?"));
            }
        }
        // The workers of a server have the same classes, and perhaps different numbers of objects.
        let names = |sight: &ClassesInSight| sight.unnamed.iter().map(|it| Arc::clone(&it.class)).collect::<Vec<_>>();
        let mut groups: Vec<(&ClassesInSight, Vec<u32>)> = Vec::new();
        for sight in in_sight {
            match groups.iter_mut().find(|(first, _)| names(first) == names(sight)) {
                Some((_, processes)) => processes.push(sight.process),
                None => groups.push((sight, vec![sight.process])),
            }
        }
        sentences.extend(groups.iter().filter_map(|(first, processes)| sentence_of_unnamed(processes, &first.unnamed)));
        sentences
    }
}

/// One sentence about all of them; none if there is none.
fn sentence_of_unnamed(processes: &[u32], unnamed: &[UnnamedClass]) -> Option<String> {
    let first = unnamed.first()?;
    let (which_process, process) = (process_numbers(processes), processes.first()?);
    let named = |class: &UnnamedClass| format!("{} ({})", class.class, class.methods.join(", "));
    let mut names: Vec<String> = unnamed.iter().take(MOST_NAMED).map(named).collect();
    if unnamed.len() > MOST_NAMED {
        names.push(format!("and {} more", unnamed.len() - MOST_NAMED));
    }
    let class = &first.class;
    let (which, options, it) = match unnamed.len() {
        1 => ("has live objects and may be a model", format!("`--class {class}` or `--all-classes` traces it"), "it"),
        _ => (
            "have live objects and may be models",
            format!("`--class {class}` traces the first, `--all-classes` all of them"),
            "them",
        ),
    };
    Some(format!(
        "{which_process}: no map names {}, which {which}; {options}, `ml-tracer symbols --pid {process}` prints a map for \
         {it}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(names: &[&str]) -> ClassesInSight {
        let class =
            |name: &&str| UnnamedClass { class: (*name).into(), methods: vec!["predict", "__call__"], objects: 1 };
        ClassesInSight { process: 7, traced: vec!["app.Traced".into()], unnamed: names.iter().map(class).collect() }
    }

    #[test]
    fn a_few_classes_are_named_and_the_others_counted() {
        let options = ClassOptions::default();
        assert_eq!(options.sentences(&[sight(&[])]), Vec::<String>::new());
        let told = options.sentences(&[sight(&["app.A", "app.B", "app.C", "app.D", "app.E"])]);
        assert_eq!(
            told,
            [
                "process 7: no map names app.A (predict, __call__), app.B (predict, __call__), app.C (predict, __call__), and 2 more, \
              which have live objects and may be models; `--class app.A` traces the first, `--all-classes` all of them, `ml-tracer \
              symbols --pid 7` prints a map for them"
            ]
        );
    }

    #[test]
    fn a_class_that_is_not_there_is_told_with_its_neighbour() {
        let told = |name: &str| {
            let options = ClassOptions { classes: vec![name.to_owned()], ..ClassOptions::default() };
            options.sentences(&[ClassesInSight { unnamed: Vec::new(), ..sight(&[]) }])
        };
        assert_eq!(told("app.Tracd"), ["process 7 has no class app.Tracd so far; did you mean `--class app.Traced`?"]);
        for quiet in ["app.Traced", "Traced", "app.Zebra"] {
            assert_eq!(told(quiet), Vec::<String>::new(), "{quiet}");
        }
    }

    #[test]
    fn workers_with_the_same_classes_are_told_of_once() {
        let worker = |process, names: &[&str]| ClassesInSight { process, ..sight(names) };
        let options = ClassOptions { classes: vec!["app.Tracd".into()], ..ClassOptions::default() };
        let told = options.sentences(&[worker(7, &[]), worker(8, &["app.A"]), worker(9, &["app.A"])]);
        assert_eq!(
            told,
            [
                "processes 7, 8, 9 have no class app.Tracd so far; did you mean `--class app.Traced`?",
                "processes 8, 9: no map names app.A (predict, __call__), which has live objects and may be a model; `--class app.A` or \
                 `--all-classes` traces it, `ml-tracer symbols --pid 8` prints a map for it",
            ]
        );
    }
}
