//! Places the probes of a plan, exits before entries, and keeps what could not be placed with its reason.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::Path;

use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use tracer_common::cookie::{Cookie, ExitSite};

use super::error::{AttachError, is_about_privilege, kernel_error};
use super::multi::MultiPrograms;
use super::object::program;
use super::site::{Role, Site, scope_of};
use crate::model::{FunctionId, PlannedFunction, ReturnMethod};

/// Probes that are live. Dropping them takes them away.
#[derive(Default)]
pub struct Placed {
    entries: Vec<Link>,
    exits: Vec<Link>,
}

/// Probes that end when it is dropped.
pub enum Link {
    /// Many of them.
    Multi(#[expect(dead_code, reason = "closing the descriptor takes the probes away")] OwnedFd),
    /// One.
    Single(#[expect(dead_code, reason = "dropping the link takes the probe away")] UProbeLink),
}

/// A function whose probes the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The function.
    pub function: FunctionId,
    /// What the kernel said.
    pub problem: String,
    /// What that means.
    pub why: Refusal,
}

/// Why a function has no live probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel does not take one of them.
    Kernel,
    /// The process is ending: nothing is wrong with the function.
    ProcessIsEnding,
    /// The process does not run the code of the file.
    NotItsCode,
    /// The file is being written to: later.
    BeingWritten,
}

impl Refusal {
    /// What an error of opening or placing means.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH) => Self::ProcessIsEnding,
            // The file is not there, or not the one that was mapped (no number: our own finding).
            Some(libc::ENOENT) | None => Self::NotItsCode,
            _ => Self::Kernel,
        }
    }
}

/// How probes are placed: in one link, or one by one.
pub enum Placer<'programs> {
    /// One link per file and role.
    Multi(&'programs MultiPrograms),
    /// One perf event per probe.
    Single {
        /// Runs at entries.
        entry: &'programs mut UProbe,
        /// Runs at exits.
        exit: &'programs mut UProbe,
        /// Runs in the return trampoline.
        returned: &'programs mut UProbe,
    },
}

struct Wanted {
    function: FunctionId,
    site: Site,
}

/// Threads that take probes away side by side.
const REMOVERS: usize = 16;

/// So many probes that are placed one by one take seconds to be taken away.
const MANY_SINGLE: usize = 50;

/// Takes probes away, many at a time: for each link the kernel waits until no processor runs its program any more, which
/// takes some ten milliseconds. For links of many probes it makes no difference for how many at once. For probes that are
/// placed one by one it does: Linux 6.1 waits with two locks held (`perf_event_detach_bpf_prog` and `perf_uprobe_destroy`),
/// so that one wait follows another however many threads there are; they only see to it that the two kinds overlap.
pub fn remove(links: Vec<Link>) {
    let singles = links.iter().filter(|link| matches!(link, Link::Single(_))).count();
    if singles >= MANY_SINGLE {
        tracing::warn!(
            "{singles} probes are taken away one by one, because this kernel places them so (before Linux 6.6): it takes up \
             to a tenth of a second for each"
        );
    }
    let each = links.len().div_ceil(REMOVERS).max(1);
    let mut left = links.into_iter();
    std::thread::scope(|scope| {
        loop {
            let share: Vec<Link> = left.by_ref().take(each).collect();
            if share.is_empty() {
                break;
            }
            scope.spawn(move || drop(share));
        }
    });
}

impl Placed {
    /// Gives the entry probes away; exits go on being seen.
    #[must_use]
    pub fn take_entries(&mut self) -> Vec<Link> {
        std::mem::take(&mut self.entries)
    }

    /// Gives the exit probes away.
    #[must_use]
    pub fn take_exits(&mut self) -> Vec<Link> {
        std::mem::take(&mut self.exits)
    }
}

impl<'programs> Placer<'programs> {
    /// Places probes one by one: all three programs are needed at once.
    ///
    /// # Errors
    /// The object lacks one.
    pub fn single(ebpf: &'programs mut Ebpf) -> Result<Self, AttachError> {
        let (mut entry, mut exit, mut returned) = (None, None, None);
        for (name, program) in ebpf.programs_mut() {
            let slot = match name {
                "native_entry" => &mut entry,
                "native_exit" => &mut exit,
                "native_return" => &mut returned,
                _ => continue,
            };
            *slot = <&mut UProbe>::try_from(program).ok();
        }
        Ok(Placer::Single {
            entry: entry.ok_or(AttachError::Incomplete { name: "native_entry" })?,
            exit: exit.ok_or(AttachError::Incomplete { name: "native_exit" })?,
            returned: returned.ok_or(AttachError::Incomplete { name: "native_return" })?,
        })
    }

    /// Places all probes of the functions of one file in one process: exits first, so that no call is seen to begin
    /// whose end cannot be seen.
    ///
    /// # Errors
    /// Not permitted.
    pub fn place(
        &mut self,
        path: &Path,
        process: u32,
        slot: u16,
        functions: &[&PlannedFunction],
    ) -> Result<(Placed, Vec<Refused>), AttachError> {
        let mut placed = Placed::default();
        let mut refused = Vec::new();
        let mut unusable = HashSet::new();
        for role in [Role::Exit, Role::Return, Role::Entry] {
            let wanted: Vec<Wanted> = functions
                .iter()
                .filter(|function| !unusable.contains(&function.id))
                .flat_map(|function| sites(function, role, slot))
                .collect();
            let links = if role == Role::Entry { &mut placed.entries } else { &mut placed.exits };
            let file = PlacedFile { path, process, role };
            for (function, error) in self.place_sites(&file, &wanted, links) {
                if is_about_privilege(&error) {
                    return Err(AttachError::not_permitted(format!("a uprobe in {}", path.display()), &error));
                }
                if unusable.insert(function) {
                    let why = if is_about_the_end(&error) { Refusal::ProcessIsEnding } else { Refusal::Kernel };
                    refused.push(Refused { function, problem: error.to_string(), why });
                }
            }
        }
        Ok((placed, refused))
    }

    /// Places what the kernel takes; gives back the functions of the sites that it does not.
    fn place_sites(
        &mut self,
        file: &PlacedFile<'_>,
        wanted: &[Wanted],
        links: &mut Vec<Link>,
    ) -> Vec<(FunctionId, io::Error)> {
        if wanted.is_empty() {
            return Vec::new();
        }
        match self {
            Self::Multi(programs) => {
                let sites: Vec<Site> = wanted.iter().map(|wanted| wanted.site).collect();
                match programs.link(file.role, file.path, file.process, &sites) {
                    Ok(link) => {
                        links.push(Link::Multi(link));
                        Vec::new()
                    }
                    Err(error) if wanted.len() == 1 || is_about_privilege(&error) => vec![(wanted[0].function, error)],
                    Err(error) if is_about_the_end(&error) => {
                        let again = |wanted: &Wanted| (wanted.function, io::Error::from_raw_os_error(libc::ESRCH));
                        wanted.iter().map(again).collect()
                    }
                    // One site that the kernel does not take refuses the whole link: halve until it is alone.
                    Err(_) => {
                        let (first, second) = wanted.split_at(wanted.len() / 2);
                        let mut failures = self.place_sites(file, first, links);
                        failures.extend(self.place_sites(file, second, links));
                        failures
                    }
                }
            }
            Self::Single { entry, exit, returned } => {
                let program = match file.role {
                    Role::Entry => entry,
                    Role::Exit => exit,
                    Role::Return => returned,
                };
                let mut failures = Vec::new();
                for wanted in wanted {
                    match place_one(program, file, wanted.site) {
                        Ok(link) => links.push(Link::Single(link)),
                        Err(error) => failures.push((wanted.function, error)),
                    }
                }
                failures
            }
        }
    }
}

/// What the probes of one placement share.
pub struct PlacedFile<'path> {
    /// The file.
    pub path: &'path Path,
    /// The process.
    pub process: u32,
    /// What the program is for.
    pub role: Role,
}

/// Places one probe as a perf event.
///
/// # Errors
/// What the kernel answered.
pub fn place_one(program: &mut UProbe, file: &PlacedFile<'_>, site: Site) -> io::Result<UProbeLink> {
    let scope = NonZeroU32::new(scope_of(file.process)).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
    let point =
        UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(site.offset), cookie: Some(site.cookie) };
    let id = program.attach(point, file.path, scope).map_err(|error| kernel_error(&error))?;
    program.take_link(id).map_err(|error| kernel_error(&error))
}

/// Places a program at sites of an interpreter's file: in one link, where it is loaded for that, or else one by one.
///
/// # Errors
/// Not permitted, or the kernel does not take a probe.
pub fn place_in_interpreter(
    ebpf: &mut Ebpf,
    (name, multi): (&'static str, Option<&MultiPrograms>),
    file: &PlacedFile<'_>,
    sites: &[Site],
) -> Result<Vec<Link>, AttachError> {
    let failed = |error: io::Error| AttachError::refused(file.path, error);
    if let Some(multi) = multi {
        let link = multi.link(file.role, file.path, file.process, sites).map_err(failed)?;
        return Ok(vec![Link::Multi(link)]);
    }
    let single = program::<UProbe>(ebpf, name)?;
    sites.iter().map(|site| place_one(single, file, *site).map(Link::Single).map_err(failed)).collect()
}

/// The process has no memory any more, or is gone altogether.
fn is_about_the_end(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

fn sites(function: &PlannedFunction, role: Role, slot: u16) -> Vec<Wanted> {
    let id = function.id.0;
    let resolved = &function.request.function;
    let wanted =
        |offset: u64, cookie: Cookie| Wanted { function: function.id, site: Site { offset, cookie: cookie.0 } };
    match (role, &resolved.returns) {
        (Role::Entry, _) => {
            let entry = &resolved.entry;
            let captures = !function.request.attributes.is_empty();
            let cookie = Cookie::entry(id, slot, resolved.object, function.request.nests, captures, entry.stack_delta);
            vec![wanted(entry.offset.0, cookie)]
        }
        (Role::Exit, ReturnMethod::ReturnSites { sites }) => sites
            .iter()
            .map(|site| {
                let kind = match (site.condition, site.tail_jump) {
                    (Some(condition), _) => ExitSite::ConditionalJump(condition),
                    (None, true) => ExitSite::Jump,
                    (None, false) => ExitSite::Instruction,
                };
                wanted(site.offset.0, Cookie::exit(id, slot, kind))
            })
            .collect(),
        (Role::Return, ReturnMethod::Uretprobe { .. }) => {
            vec![wanted(resolved.entry.offset.0, Cookie::exit(id, slot, ExitSite::Trampoline))]
        }
        (Role::Exit | Role::Return, _) => Vec::new(),
    }
}
