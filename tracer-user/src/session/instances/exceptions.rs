//! Exceptions of Python code, which end calls: the probe that they pass.

use super::context::Context;
use crate::attach::CodeWatch;
use crate::engine::RuntimeInstance;
use crate::model::{InterpreterSite, Target, Witness, WitnessSite};
use crate::target::has_ended;

/// Places the probe that exceptions pass: where they leave frames, if that is known and (`is_watched`) the calls are watched. Most
/// are caught in the frame that they are raised in. `known`: the place, once that was asked. Without it calls are seen as well.
pub fn see_exceptions(
    context: &mut Context<'_>,
    (instance, target): (&dyn RuntimeInstance, &Target),
    code: &mut CodeWatch,
    known: &mut Option<Option<InterpreterSite>>,
    is_watched: bool,
) {
    let Ok(kernel) = context.in_kernel(target.process) else { return };
    let Some(file) = instance.file(target) else { return };
    let unwinding = || {
        let sites = is_watched.then(|| instance.witness_sites(target).ok()).flatten()?;
        sites.iter().find(|site| site.witness == Witness::Unwinds).map(WitnessSite::of_current_frame)
    };
    let site = known.get_or_insert_with(|| unwinding().or_else(|| instance.exception_site(target)));
    let Some(site) = site else { return };
    match code.see_exceptions(kernel, &file, site) {
        Err(error) if !has_ended(target.process) => tracing::warn!(
            "exceptions in process {} are not seen, and calls that they end have no error type: {error}",
            target.process
        ),
        Ok(()) | Err(_) => {}
    }
}
