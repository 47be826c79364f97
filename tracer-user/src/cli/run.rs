//! `ml-tracer run`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::arguments::RunArguments;
use super::attach::{conclude, finish, load_maps, requests_to_load, settings, tell_attached, tell_changes};
use super::exit::{UsageError, demand_privilege};
use super::list;
use super::print::tell;
use super::signals;
use super::summary_file::SummaryFile;
use crate::attach::sockets_tell;
use crate::export::Destination;
use crate::model::{Module, Service, Target};
use crate::session;
use crate::session::{AFTER_SIGNAL, Message, Report, Settings, Stop, plan_only};
use crate::target::{Watcher, application_of, find_program, look_at, modules_at_start};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Signals that end a process because of the code that it runs.
const ABOUT_CODE: [(i32, &str); 4] = [
    (Signal::TRAP.as_raw(), "SIGTRAP"),
    (Signal::ILL.as_raw(), "SIGILL"),
    (Signal::SEGV.as_raw(), "SIGSEGV"),
    (Signal::BUS.as_raw(), "SIGBUS"),
];

/// Starts a command and traces it from its first instruction. Gives back the command's exit code.
pub fn run(arguments: &RunArguments, began: Instant) -> anyhow::Result<ExitCode> {
    session::enough_descriptors()?;
    let trace = &arguments.trace;
    trace.check()?;
    let maps = load_maps(&trace.maps, &trace.classes)?;
    let Some(name) = arguments.command.first() else { return Err(UsageError("no command".into()).into()) };
    let program = find_program(name)
        .ok_or_else(|| UsageError(format!("{}: no such program, neither here nor in PATH", name.display())))?;
    let modules = modules_at_start(&program);
    let summary = if trace.dry_run {
        None
    } else {
        demand_privilege()?;
        SummaryFile::create(&trace.exports, trace.summary.as_deref())?
    };
    let (tell_session, inbox) = channel();
    let stop = Arc::default();
    signals::listen(tell_session.clone(), stop)?;
    let (child, target) = start_stopped(&arguments.command, program, modules)?;
    let pid = Pid::from_child(&child);
    if trace.dry_run {
        kill_process(pid, Signal::KILL)?;
        let plan = plan_only(&[(None, target)], maps, trace.python(), trace.probe_moving_code);
        return list::print_plan(&plan, false);
    }
    let watcher = Watcher::new(vec![target], trace.forks.are_followed()).of_command();
    // What it listens on is known later.
    let requests = requests_to_load(trace.requests, sockets_tell);
    let settings = settings((trace, requests), &arguments.display, watcher, maps, began, tell_session.clone());
    // What the command prints stays what it is.
    let exports = settings.exports.into_iter().map(Destination::off_stdout).collect();
    let started = session::start(Settings { is_command: true, exports, ..settings });
    if started.is_err() {
        // Nothing of the command has run yet.
        kill_process(pid, Signal::KILL)?;
    }
    let mut session = started?;
    tell_attached(&session);
    kill_process(pid, Signal::CONT)?;
    wait_in_background(child, tell_session);
    let (ended, status) = loop {
        let stopped = session.run(&inbox, tell_changes);
        match stopped {
            Ok(Stop::CommandEnded(status)) => break (finish(session, stopped), Some(status)),
            Ok(Stop::Signal(number)) => pass_on(number, pid),
            _ => break (finish(session, stopped), None),
        }
    };
    // Whatever becomes of the session and its summary, the command goes on, and the exit code is its own.
    let concluded = ended.map_err(Into::into).and_then(|ended| {
        if let (Some(signal), true) = (status.as_ref().and_then(ExitStatusExt::signal), ended.report.functions > 0)
            && let Some(name) = ABOUT_CODE.iter().find(|(number, _)| *number == signal).map(|(_, name)| name)
        {
            tell(&format!("the command was ended by {name} while its functions were probed: {AFTER_SIGNAL}"));
        }
        conclude_run(&ended.report, summary)
    });
    concluded.unwrap_or_else(|failure: anyhow::Error| tell(&failure.to_string()));
    let status = match status {
        Some(status) => status,
        None => outlive(&inbox, pid)?,
    };
    Ok(exit_code(status))
}

fn conclude_run(report: &Report, summary: Option<SummaryFile>) -> anyhow::Result<()> {
    if report.functions == 0 {
        match report.skipped {
            0 => tell(
                "nothing was traced: no function of the command matches a symbol map (see `ml-tracer symbols FILE`), or the \
                 command ended before the libraries that it loads could be looked at",
            ),
            count => tell(&format!(
                "nothing was traced: {count} functions of the command match a symbol map and cannot be probed; \
                 `ml-tracer symbols FILE` says why"
            )),
        }
    }
    conclude(report, summary)
}

/// Starts this program again: it stops itself, and once continued becomes the command, with the same number.
fn start_stopped(command: &[OsString], executable: PathBuf, modules: Vec<Module>) -> anyhow::Result<(Child, Target)> {
    let child = Command::new(std::env::current_exe()?).arg("wait-and-execute").arg("--").args(command).spawn()?;
    let pid = Pid::from_child(&child);
    let status = waitpid(Some(pid), WaitOptions::UNTRACED)?.map(|(_, status)| status);
    if !status.is_some_and(|status| status.stopped()) {
        anyhow::bail!("the command could not be prepared: it ended before it began");
    }
    let looked_at = look_at(child.id())?;
    // So far it is this program; what it will be is known.
    let command_line: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let service = Service { application: application_of(&command_line), ..looked_at.service };
    Ok((child, Target { modules, executable, command_line, service, ..looked_at }))
}

/// Tells the command's end, from a thread that does nothing but wait for it.
fn wait_in_background(mut child: Child, tell: Sender<Message>) {
    std::thread::spawn(move || {
        if let Ok(status) = child.wait() {
            // Nobody listens any more when the tracer itself is ending.
            let _ = tell.send(Message::CommandEnded(status));
        }
    });
}

/// Tracing is over but the command goes on: its exit code is still ours to give.
fn outlive(inbox: &Receiver<Message>, pid: Pid) -> anyhow::Result<ExitStatus> {
    loop {
        match inbox.recv()? {
            Message::Signal(number) => pass_on(number, pid),
            Message::CommandEnded(status) => return Ok(status),
            Message::Targets(_) | Message::Processes(_) | Message::LookEnded => {}
        }
    }
}

/// A signal for us is meant for the command. What the terminal sends to its foreground group the command has already.
fn pass_on(number: i32, pid: Pid) {
    let from_terminal = number == Signal::INT.as_raw()
        && rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
    if from_terminal {
        return;
    }
    if let Some(signal) = Signal::from_named_raw(number) {
        // It may have ended in this moment; then there is nothing to pass on to.
        let _ = kill_process(pid, signal);
    }
}

/// As shells do: 128 + N for a command that signal N ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
