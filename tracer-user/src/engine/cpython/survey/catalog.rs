//! Classes and the functions behind their methods go in; functions and code to watch, each once, come out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::{CodeView, Interpreter, ReadProblem};
use super::classes::{ClassRule, HeapClass};
use super::methods::{Found, Methods};
use crate::memory::Memory;
use crate::model::{
    CodeUser, FirstArgument, PythonCode, PythonFunction, PythonSkipReason, PythonSkipped, Receiver, RemoteAddress,
};

/// Bytes of a variable.
const POINTER: u32 = 8;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub functions: BTreeMap<RemoteAddress, PythonFunction>,
    pub codes: BTreeMap<RemoteAddress, PythonCode>,
    pub skipped: Vec<PythonSkipped>,
    /// Every code object that was looked at.
    views: HashMap<RemoteAddress, Arc<CodeView>>,
    /// Names of modules and files: many functions have the same ones.
    shared: HashSet<Arc<str>>,
}

/// A function of a chain that can be watched.
struct Link {
    function: RemoteAddress,
    code: Arc<CodeView>,
}

impl Catalog {
    /// Adds the methods of one class; gives whether it has any.
    pub(super) fn add<M: Memory>(
        &mut self,
        methods: &mut Methods<M>,
        interpreter: &Interpreter<M>,
        (class, rule): (&HeapClass, &ClassRule),
        (instances, in_models, roots): (u32, u32, u32),
    ) -> bool {
        let mut has_any = false;
        for method in &rule.methods {
            let reason = match methods.find(class, method) {
                Found::Absent => continue,
                Found::Skipped(reason) => Some(reason),
                Found::Chain(chain) => {
                    let user = CodeUser {
                        address: class.mro.first().copied().unwrap_or_default(),
                        class: class.name.clone(),
                        method: method.clone(),
                        instances,
                        in_models,
                        roots,
                    };
                    self.add_chain(methods, interpreter, &chain, rule, user).unwrap_or_else(|_| {
                        methods.torn += 1;
                        Some(PythonSkipReason::Unreadable)
                    })
                }
            };
            has_any = true;
            if let Some(reason) = reason {
                let name = format!("{}.{method}", class.name);
                self.skipped.push(PythonSkipped { name, reason, is_live: instances > 0 });
            }
        }
        has_any
    }

    /// Adds the functions of one method; gives the reason if none of them can be watched.
    fn add_chain<M: Memory>(
        &mut self,
        methods: &mut Methods<M>,
        interpreter: &Interpreter<M>,
        chain: &[RemoteAddress],
        rule: &ClassRule,
        user: CodeUser,
    ) -> Result<Option<PythonSkipReason>, ReadProblem> {
        let mut links: Vec<Link> = Vec::new();
        let mut reason = None;
        for function in chain {
            let code = methods.function(*function)?.code;
            let code = self.code(interpreter, code)?;
            let obstacle = match code.receiver {
                _ if code.is_resumed() => Some(PythonSkipReason::Generator),
                Receiver::None => Some(PythonSkipReason::NoReceiver),
                Receiver::Local | Receiver::Cell | Receiver::FirstOfTuple => None,
            };
            match obstacle {
                None => links.push(Link { function: *function, code }),
                Some(_) => reason = reason.or(obstacle),
            }
        }
        // What the class's author wrote: what stands around it is the same for many methods.
        let own = chain.last().copied().unwrap_or_default();
        let of_chain: Vec<RemoteAddress> = links.iter().map(|link| link.code.address).collect();
        for (index, link) in links.iter().enumerate() {
            // A wrapper around itself is one call.
            let is_repeated = of_chain.iter().take(index).any(|outer| *outer == link.code.address);
            let method = (!is_repeated).then(|| user.method.clone());
            self.add_function(methods, interpreter, (link.function, own), method, Some(rule))?;
            if let Some(function) = self.functions.get_mut(&link.function) {
                links.iter().skip(index + 1).for_each(|inner| add_once(&mut function.inner, inner.function));
            }
            let code = match self.codes.entry(link.code.address) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(to_watch(interpreter, &link.code)),
            };
            if !code.users.contains(&user) {
                code.users.push(user.clone());
            }
            for other in &of_chain {
                if *other != link.code.address {
                    add_once(&mut code.wraps, *other);
                }
            }
        }
        Ok(if links.is_empty() { reason } else { None })
    }

    fn code<M: Memory>(
        &mut self,
        interpreter: &Interpreter<M>,
        address: RemoteAddress,
    ) -> Result<Arc<CodeView>, ReadProblem> {
        if let Some(view) = self.views.get(&address) {
            return Ok(view.clone());
        }
        let view = Arc::new(interpreter.retrying(|interpreter| interpreter.code(address))?);
        self.views.insert(address, view.clone());
        Ok(view)
    }

    /// Adds a function that runs code which is to be watched, unless it is there.
    pub(super) fn add_sharing<M: Memory>(
        &mut self,
        methods: &mut Methods<M>,
        interpreter: &Interpreter<M>,
        function: RemoteAddress,
    ) {
        if self.functions.contains_key(&function) {
            return;
        }
        let Ok(view) = methods.function(function) else {
            methods.torn += 1;
            return;
        };
        if !self.views.contains_key(&view.code) {
            return;
        }
        if self.add_function(methods, interpreter, (function, function), None, None).is_err() {
            methods.torn += 1;
        }
    }

    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.shared.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.shared.insert(Arc::clone(&text));
        text
    }

    /// Adds a function. `own` is the one that it wraps in the end, which tells where the method is written and what it is
    /// called there.
    fn add_function<M: Memory>(
        &mut self,
        methods: &mut Methods<M>,
        interpreter: &Interpreter<M>,
        (address, own): (RemoteAddress, RemoteAddress),
        method: Option<Arc<str>>,
        rule: Option<&ClassRule>,
    ) -> Result<(), ReadProblem> {
        let view = methods.function(address)?;
        let own = methods.function(own)?;
        let written = self.code(interpreter, own.code)?;
        let (module, file) = (self.share(&own.module), self.share(&written.file));
        let function = self.functions.entry(address).or_insert_with(|| PythonFunction {
            address,
            code: view.code,
            inner: Vec::new(),
            method: None,
            qualified_name: own.qualified_name.as_str().into(),
            module,
            file,
            line: written.first_line,
            library: rule.map_or_else(|| "".into(), |rule| rule.library.clone()),
            of_container: false,
        });
        if function.method.is_none() {
            function.method = method;
        }
        function.of_container |= rule.is_some_and(|rule| rule.children.is_some());
        Ok(())
    }
}

fn add_once(addresses: &mut Vec<RemoteAddress>, address: RemoteAddress) {
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

fn to_watch<M: Memory>(interpreter: &Interpreter<M>, code: &CodeView) -> PythonCode {
    let first_argument = code.argument.and_then(|(kind, slot)| {
        let until = interpreter.unchanged_until(code.address, slot).ok().flatten()?;
        Some(FirstArgument { kind, offset: slot.checked_mul(POINTER)?, until })
    });
    PythonCode {
        address: code.address,
        name: code.qualified_name.as_deref().unwrap_or(&code.name).into(),
        frame_bytes: code.frame_bytes,
        receiver: code.receiver,
        receiver_offset: code.receiver_offset,
        users: Vec::new(),
        loops: interpreter.loops(code.address).ok().flatten(),
        first_argument,
        wraps: Vec::new(),
    }
}
