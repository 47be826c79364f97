//! The contexts of Python code (`contextvars.Context`), which tell for whom a call was made.

use super::context::Context;
use crate::engine::RuntimeInstance;
use crate::model::{PythonLayout, Target};
use crate::target::has_ended;

/// From now on it is seen which contexts are made and freed, where they are asked for. Without that calls are seen as well, and
/// requests, but not which belong together.
pub fn see_contexts(context: &mut Context<'_>, instance: &dyn RuntimeInstance, target: &Target, layout: &PythonLayout) {
    if layout.thread_context == 0 {
        return;
    }
    let process = target.process;
    let Some(path) = instance.file(target) else { return };
    let placed = instance.context_sites(target).map_err(|error| error.to_string()).and_then(|sites| {
        let kernel = context.in_kernel(process).map_err(|error| error.to_string())?;
        kernel.place_contexts(&path, &sites).map_err(|error| error.to_string())
    });
    match placed {
        Err(problem) if !has_ended(process) => tracing::warn!(
            "process {process}: calls are not joined to requests, because contexts of its Python code are not seen: {problem}"
        ),
        Ok(()) | Err(_) => {}
    }
}
