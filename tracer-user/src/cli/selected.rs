//! Which processes were asked for: by number, name or port; and what they have forked.

use std::collections::HashSet;

use clap::Args;

use super::exit::{UsageError, demand_privilege};
use super::print::tell;
use crate::model::{ProcessId, Target};
use crate::target::{Selection, TargetError, descendants, look_at};

/// Options that `attach` and `symbols` share.
#[derive(Clone, Debug, Default, Args)]
pub struct Selected {
    /// Processes, by number (several, or with commas)
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',', value_parser = parse_pid)]
    pub pids: Vec<u32>,
    /// Processes of this name, script, module or application; * and ? stand for anything
    #[arg(long = "name", value_name = "GLOB", value_parser = Selection::named)]
    pub names: Vec<Selection>,
    /// Processes that listen on this TCP port
    #[arg(long = "port", value_name = "PORT", value_parser = parse_port)]
    pub ports: Vec<Selection>,
}

impl Selected {
    /// Whether no process was asked for.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.names.is_empty() && self.ports.is_empty()
    }

    /// The processes that are there; of the others it is told why they are not, and of a name or port which they are. The
    /// workers of a server have its name too: with `are_followed`, those that another one has forked come with that one.
    ///
    /// # Errors
    /// None of them is there, or may be looked at.
    pub fn look(&self, are_followed: bool) -> anyhow::Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::new();
        let mut unreachable: Vec<TargetError> = Vec::new();
        for pid in self.wanted()? {
            if pid == std::process::id() {
                return Err(UsageError(format!("{pid} is ml-tracer itself; it cannot trace itself")).into());
            }
            if targets.iter().any(|target| target.process.pid == pid) {
                continue;
            }
            match look_at(pid) {
                Ok(target) => targets.push(target),
                Err(error @ TargetError::NotPermitted { .. }) => {
                    // What is missing says more.
                    demand_privilege()?;
                    unreachable.push(error);
                }
                Err(error) => unreachable.push(error),
            }
        }
        if targets.is_empty() && !unreachable.is_empty() {
            return Err(unreachable.remove(0).into());
        }
        // Those that are there are traced.
        unreachable.iter().for_each(|error| tell(&error.to_string()));
        if are_followed && targets.len() > self.pids.len() {
            let forked: HashSet<u32> = targets.iter().flat_map(pids_forked_by).collect();
            targets.retain(|target| self.pids.contains(&target.process.pid) || !forked.contains(&target.process.pid));
        }
        Ok(targets)
    }

    /// The numbers of the processes that were asked for.
    fn wanted(&self) -> anyhow::Result<Vec<u32>> {
        let mut pids = self.pids.clone();
        for selection in self.names.iter().chain(&self.ports) {
            let found = match selection.find() {
                Ok(found) => found,
                Err(error) => {
                    // Those of others may be hidden from this user.
                    demand_privilege()?;
                    return Err(error.into());
                }
            };
            let numbers: Vec<String> = found.iter().map(u32::to_string).collect();
            let noun = if found.len() == 1 { "process" } else { "processes" };
            tell(&format!("{noun} {selection}: {}", numbers.join(", ")));
            pids.extend(found);
        }
        Ok(pids)
    }
}

fn pids_forked_by(target: &Target) -> Vec<u32> {
    descendants(std::slice::from_ref(target)).into_iter().map(|(_, forked)| forked.process.pid).collect()
}

/// These processes, and with `are_followed` those that they have forked, each with the one that has.
pub fn with_descendants(named: Vec<Target>, are_followed: bool) -> Vec<(Option<ProcessId>, Target)> {
    let forked = if are_followed { descendants(&named) } else { Vec::new() };
    let named = named.into_iter().map(|target| (None, target));
    named.chain(forked.into_iter().map(|(parent, target)| (Some(parent), target))).collect()
}

fn parse_pid(text: &str) -> Result<u32, String> {
    let hint = || match text.parse::<i64>() {
        Ok(_) => "a PID is a number from 1 to 4194304".to_owned(),
        Err(_) => {
            format!("a PID is the number of a process (`pgrep -a {text}` shows it); `--name {text}` takes a name")
        }
    };
    text.parse().ok().filter(|pid| *pid > 0).ok_or_else(hint)
}

fn parse_port(text: &str) -> Result<Selection, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.map(Selection::Listening).ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
}
