//! Symbol maps compiled for Python: which methods of a class become spans, what nests in them, where its children are.

use crate::model::{Children, Language, Recurse, SymbolMap};

use super::check::class_key;
use super::pattern::Pattern;

/// The rules for Python classes. Classes are told by the dotted paths of their mro.
///
/// A map is about a class if one of its `bases` is in the mro; without `bases` it is about every class except built-in
/// ones. Of several maps the more special one decides: the one whose last base in the mro comes first; a map without
/// `bases` comes after all others; between equals the later map.
///
/// A listed name without dots is compared with the last component of a path. A dotted one is compared with the whole path,
/// private components left out on both sides: `sklearn.compose.ColumnTransformer` is
/// `sklearn.compose._column_transformer.ColumnTransformer`.
#[derive(Clone, Debug)]
pub struct PythonRules {
    /// First the one that wins between equals.
    maps: Vec<CompiledMap>,
}

/// What the rules say about a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PythonVerdict<'rules> {
    /// Library of the map that decided.
    pub library: &'rules str,
    /// Methods that become spans, where the class has them.
    pub methods: &'rules [String],
    /// Whether matching calls inside its calls become spans of their own.
    pub nests: bool,
    /// Where its instances keep their children.
    pub children: Option<&'rules Children>,
    /// Pattern that excludes the class.
    pub excluded: Option<&'rules str>,
}

#[derive(Clone, Debug)]
struct CompiledMap {
    map: SymbolMap,
    bases: Vec<ClassName>,
    leaf: Vec<ClassName>,
    /// One for each container of `recurse`.
    containers: Vec<ClassName>,
    /// One for each entry of `exclude`.
    exclude: Vec<Excluded>,
}

/// A class as a map writes it.
#[derive(Clone, Debug)]
enum ClassName {
    Bare(String),
    /// Without private components.
    Dotted(String),
}

/// An entry of `exclude`.
#[derive(Clone, Debug)]
enum Excluded {
    /// The class and its subclasses.
    Named(ClassName),
    /// The classes whose own name or path matches: a glob such as `sklearn.*` would match a base of every estimator.
    Matching(Pattern),
}

/// A class of a process, in the forms that rules compare with.
struct Class<'mro> {
    path: &'mro str,
    bare: &'mro str,
    public: String,
}

impl PythonRules {
    /// Compiles the maps for Python among these, which are in the order of [`super::MapSet::maps`].
    #[must_use]
    pub fn new(maps: &[SymbolMap]) -> Self {
        let python = maps.iter().rev().filter(|map| map.language == Language::Python && !map.methods.is_empty());
        Self { maps: python.map(CompiledMap::new).collect() }
    }

    /// Whether no class can have a verdict.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// The last components of the classes that maps are about, each once; and whether there is no map that is about every class.
    #[must_use]
    pub fn base_names(&self) -> (Vec<String>, bool) {
        let mut names: Vec<String> = self.maps.iter().flat_map(|map| &map.bases).map(ClassName::last).collect();
        names.sort_unstable();
        names.dedup();
        (names, self.maps.iter().all(|map| !map.bases.is_empty()))
    }

    /// What the rules say about a class whose mro has these paths (`module.QualifiedName`, the class itself first).
    /// `of_application`: it is defined in a module of the application's own. `None`: no map is about it.
    #[must_use]
    pub fn verdict(&self, mro: &[String], of_application: bool) -> Option<PythonVerdict<'_>> {
        let mro: Vec<Class> = mro.iter().map(|path| Class::new(path)).collect();
        let maps = self.maps.iter().filter(|compiled| of_application || !compiled.map.of_application);
        let ranked = maps.filter_map(|compiled| Some((compiled.rank(&mro)?, compiled)));
        // `min_by_key` takes the first of equals.
        let (_, compiled) = ranked.min_by_key(|(rank, _)| *rank)?;
        Some(compiled.verdict(&mro))
    }
}

impl CompiledMap {
    fn new(map: &SymbolMap) -> Self {
        let names = |classes: &[String]| classes.iter().map(|class| ClassName::new(class)).collect();
        let containers = match &map.recurse {
            Recurse::All => Vec::new(),
            Recurse::Only(containers) => containers.iter().map(|container| ClassName::new(&container.class)).collect(),
        };
        Self {
            bases: names(&map.bases),
            leaf: names(&map.leaf),
            containers,
            exclude: map.exclude.iter().map(|pattern| Excluded::new(pattern)).collect(),
            map: map.clone(),
        }
    }

    /// How special the map is for a class, the smallest number first; `None` if it is not about it.
    fn rank(&self, mro: &[Class]) -> Option<usize> {
        if self.bases.is_empty() {
            let built_in = mro.first().is_none_or(|class| class.path.starts_with("builtins."));
            return (!built_in).then_some(mro.len());
        }
        mro.iter().rposition(|class| self.bases.iter().any(|base| base.is(class)))
    }

    fn verdict(&self, mro: &[Class]) -> PythonVerdict<'_> {
        let (nests, children) = match &self.map.recurse {
            Recurse::All => {
                let is_leaf = mro.iter().any(|class| self.leaf.iter().any(|leaf| leaf.is(class)));
                (!is_leaf, None)
            }
            Recurse::Only(_) => {
                let children = self.children(mro);
                (children.is_some(), children)
            }
        };
        PythonVerdict {
            library: &self.map.library,
            methods: &self.map.methods,
            nests,
            children,
            excluded: self.excluded(mro),
        }
    }

    /// Where a class or, before the others, the nearest of its bases keeps its children.
    fn children(&self, mro: &[Class]) -> Option<&Children> {
        let Recurse::Only(containers) = &self.map.recurse else { return None };
        mro.iter().enumerate().find_map(|(position, class)| {
            let mut rules = self.containers.iter().zip(containers);
            // Fields with plain children are private to a class: a subclass may keep something else there.
            let inherited = |children: &Children| position == 0 || matches!(children, Children::Named(_));
            let found = rules.find(|(name, container)| name.is(class) && inherited(&container.children));
            found.map(|(_, container)| &container.children)
        })
    }

    fn excluded(&self, mro: &[Class]) -> Option<&str> {
        let position = self.exclude.iter().position(|excluded| excluded.holds(mro))?;
        self.map.exclude.get(position).map(String::as_str)
    }
}

impl ClassName {
    fn new(listed: &str) -> Self {
        let key = class_key(listed);
        if key.contains('.') { Self::Dotted(public(&key)) } else { Self::Bare(key) }
    }

    /// Its last component.
    fn last(&self) -> String {
        let (Self::Bare(name) | Self::Dotted(name)) = self;
        name.rsplit('.').next().unwrap_or(name).to_owned()
    }

    fn is(&self, class: &Class) -> bool {
        match self {
            Self::Bare(name) => name == class.bare,
            Self::Dotted(path) => *path == class.public,
        }
    }
}

impl Excluded {
    fn new(pattern: &str) -> Self {
        match Pattern::new(&class_key(pattern)) {
            Ok(pattern @ Pattern::Glob(_)) => Self::Matching(pattern),
            Ok(_) | Err(_) => Self::Named(ClassName::new(pattern)),
        }
    }

    fn holds(&self, mro: &[Class]) -> bool {
        match self {
            Self::Named(name) => mro.iter().any(|class| name.is(class)),
            Self::Matching(pattern) => mro.first().is_some_and(|class| {
                [class.path, class.bare, class.public.as_str()].into_iter().any(|text| pattern.matches(text))
            }),
        }
    }
}

impl<'mro> Class<'mro> {
    fn new(path: &'mro str) -> Self {
        Self { path, bare: path.rsplit('.').next().unwrap_or(path), public: public(path) }
    }
}

/// A dotted path without its private components, as users write it. The class itself and names such as `__main__` stay.
fn public(path: &str) -> String {
    let (module, class) = path.rsplit_once('.').unwrap_or(("", path));
    let private = |part: &&str| part.starts_with('_') && !(part.starts_with("__") && part.ends_with("__"));
    let mut kept: Vec<&str> = module.split('.').filter(|part| !part.is_empty() && !private(part)).collect();
    kept.push(class);
    kept.join(".")
}
