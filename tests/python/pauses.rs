//! How long a watched process stands still at most, whatever holds up the tracer and its guard.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer_tests::python::SYSTEM;
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case, is_full, report};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{Attached, Tracer};
use tracer_tests::workspace;

/// Longer than this nothing may hold it up.
const LONGEST: u64 = 500;

/// Rounds of the target, of some milliseconds each, and how much of that passes before something happens.
const ROUNDS: &str = "150";
const BEFORE: Duration = Duration::from_millis(200);

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel, Need::VirtualMachine, Need::Python(SYSTEM)];
    vec![
        case("nothing_that_holds_up_the_tracer_holds_up_the_process", NEEDS, signals),
        case("a_paused_control_group_holds_up_nobody", NEEDS, control_groups),
        case("a_guard_lives_apart", NEEDS, quarters),
        case("a_stopped_guard_keeps_nobody_from_ending", NEEDS, ends),
        case("a_killed_guard_takes_no_signal_along", NEEDS, storm),
    ]
}

fn run() -> PythonRun {
    PythonRun::of(SYSTEM, "python_traps", &["pauses", ROUNDS])
}

fn attach(target: &Target, first: &str) -> Result<Attached> {
    Tracer::attach(target.pid())?.map_file(&workspace::tests("targets/python_plain/map.yaml"))?.after(first).start()
}

fn guard_of(target: &Target) -> Result<Pid> {
    let status = fs::read_to_string(format!("/proc/{}/status", target.pid()))?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).context("no TracerPid")?;
    Pid::from_raw(tracer.trim().parse()?).context("it has no guard")
}

/// The longest pauses in a batch, in milliseconds.
#[derive(Debug)]
struct Pauses {
    of_target: u64,
    /// Of one that nobody traces: what has held it up has held up the whole machine.
    of_bystander: u64,
}

impl Pauses {
    fn are_short(&self) -> bool {
        self.of_target < LONGEST + self.of_bystander
    }
}

/// Begins a batch, and has something happen in the middle of it.
fn longest_pauses(target: &mut Target, happens: impl FnOnce() -> Result<()>) -> Result<Pauses> {
    target.begin_batch()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let bystander = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || longest_pause_here(&is_over)
    });
    sleep(BEFORE);
    happens()?;
    let told = target.running.wait_output("longest pause")?;
    is_over.store(true, Ordering::Relaxed);
    target.running.wait_output("ready")?;
    let of_target =
        told.split_whitespace().nth(2).and_then(|number| number.parse().ok()).with_context(|| told.clone())?;
    let of_bystander = bystander.join().map_err(|_| anyhow!("the bystander has panicked"))?;
    Ok(Pauses { of_target, of_bystander })
}

fn longest_pause_here(is_over: &AtomicBool) -> u64 {
    let mut longest = Duration::ZERO;
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        sleep(Duration::from_millis(1));
        longest = longest.max(began.elapsed());
    }
    longest.as_millis() as u64
}

fn signals() -> Result<()> {
    let states: &[(&str, &[Signal], &[Signal])] = &[
        ("both running", &[], &[]),
        ("tracer stopped", &[Signal::STOP], &[]),
        ("guard stopped", &[], &[Signal::STOP]),
        ("both stopped", &[Signal::STOP], &[Signal::STOP]),
        ("tracer killed", &[Signal::KILL], &[]),
        ("guard killed", &[], &[Signal::KILL]),
        ("both killed", &[Signal::KILL], &[Signal::KILL]),
    ];
    for _ in 0..if is_full() { 100 } else { 1 } {
        for (state, to_tracer, to_guard) in states {
            let mut target = run().start()?;
            let attached = attach(&target, "true")?;
            let guard = guard_of(&target)?;
            let pauses = longest_pauses(&mut target, || {
                to_tracer.iter().try_for_each(|signal| attached.running.signal(*signal))?;
                to_guard.iter().try_for_each(|signal| Ok(kill_process(guard, *signal)?))
            })?;
            report(&format!("longest pause with {state}, in ms: {pauses:?}"));
            ensure!(pauses.are_short(), "{state}: {pauses:?}");
            if to_tracer.contains(&Signal::KILL) {
                attached.running.finish()?;
            } else {
                attached.running.signal(Signal::CONT)?;
                attached.stop()?.check_books()?;
            }
            let finished = target.finish()?;
            ensure!(finished.code == Some(0), "{state}: {finished:?}");
        }
    }
    Ok(())
}

/// The guard is killed at any moment while one signal after the other reaches the process: none is lost, or the process would wait for
/// it for ever.
fn storm() -> Result<()> {
    for round in 0..if is_full() { 100 } else { 20 } {
        let mut target = PythonRun::of(SYSTEM, "python_traps", &["storm", "20000"]).start()?;
        let attached = attach(&target, "true")?;
        let guard = guard_of(&target)?;
        target.begin_batch()?;
        sleep(Duration::from_millis(30 + round % 7));
        kill_process(guard, Signal::KILL)?;
        target
            .running
            .wait_output("ready")
            .with_context(|| format!("the process has lost a signal in round {round}"))?;
        attached.stop()?.check_books()?;
        let finished = target.finish()?;
        ensure!(finished.code == Some(0), "{finished:?}");
    }
    Ok(())
}

/// A control group that goes with the test.
struct ControlGroup {
    folder: PathBuf,
    freeze: (&'static str, &'static str, &'static str),
}

impl ControlGroup {
    /// One for each hierarchy here that can freeze.
    fn all() -> Result<Vec<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut groups = Vec::new();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, mount, kind, options, ..] = fields[..] else { continue };
            let is_freezer = options.split(',').any(|option| option == "freezer");
            let freeze = match kind {
                "cgroup2" => ("cgroup.freeze", "1", "0"),
                "cgroup" if is_freezer => ("freezer.state", "FROZEN", "THAWED"),
                _ => continue,
            };
            let folder = Path::new(mount).join(format!("ml-tracer-test-{}", std::process::id()));
            fs::create_dir(&folder)?;
            groups.push(Self { folder, freeze });
        }
        Ok(groups)
    }

    fn members(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    fn freeze(&self) -> Result<()> {
        Ok(fs::write(self.folder.join(self.freeze.0), self.freeze.1)?)
    }

    fn thaw(&self) -> Result<()> {
        Ok(fs::write(self.folder.join(self.freeze.0), self.freeze.2)?)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = self.thaw();
        let began = Instant::now();
        // Members that have just ended may still be listed.
        while fs::remove_dir(&self.folder).is_err() && began.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(20));
        }
    }
}

fn control_groups() -> Result<()> {
    for group in ControlGroup::all()? {
        let is_second = group.freeze.0 == "cgroup.freeze";
        // The second version kills what is frozen; the first one does not, so that the guard must have left.
        for with_guard in [false, true].into_iter().take(if is_second { 2 } else { 1 }) {
            let mut target = run().start()?;
            let attached = attach(&target, &format!("echo $$ > {}", group.members().display()))?;
            let guard = guard_of(&target)?.as_raw_nonzero();
            let members = fs::read_to_string(group.members())?;
            ensure!(!members.lines().any(|member| member == guard.to_string()), "the guard is in it: {members}");
            if with_guard {
                fs::write(group.members(), guard.to_string())?;
            }
            let pauses = longest_pauses(&mut target, || group.freeze())?;
            report(&format!("longest pause with {} frozen, guard inside {with_guard}: {pauses:?}", group.freeze.0));
            ensure!(pauses.are_short(), "{} {with_guard}: {pauses:?}", group.freeze.0);
            group.thaw()?;
            attached.stop()?.check_books()?;
            ensure!(target.finish()?.code == Some(0), "the target has not ended as it would");
        }
    }
    Ok(())
}

/// It has a name, a session, and nothing of the tracer's but its line and its program.
fn quarters() -> Result<()> {
    let target = run().start()?;
    let attached = attach(&target, "exec 7</dev/zero")?;
    let guard = guard_of(&target)?.as_raw_nonzero();
    let read = |file: &str| fs::read_to_string(format!("/proc/{guard}/{file}"));
    ensure!(read("comm")?.trim() == "ml-tracer-guard", "{}", read("comm")?);
    ensure!(read("cmdline")?.starts_with("ml-tracer-guard\0"), "{}", read("cmdline")?);
    ensure!(read("oom_score_adj")?.trim() == "1000", "{}", read("oom_score_adj")?);
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // State, parent, process group, session.
    ensure!(fields.get(2) == Some(&guard.to_string().as_str()) && fields.get(3) == fields.get(2), "{stat}");
    for entry in fs::read_dir(format!("/proc/{guard}/fd"))? {
        let points_to = fs::read_link(entry?.path())?.to_string_lossy().into_owned();
        let is_known =
            ["socket:", "anon_inode:bpf-prog", "anon_inode:[signalfd]", "anon_inode:[perf_event]", "/dev/null"]
                .iter()
                .any(|known| points_to.starts_with(known));
        ensure!(is_known, "the guard holds {points_to}");
    }
    attached.stop()?;
    target.finish().map(drop)
}

/// Both the tracer and the process end at once when they are asked to, while the guard is stopped.
fn ends() -> Result<()> {
    let mut target = run().start()?;
    let attached = attach(&target, "true")?;
    target.begin_batch()?;
    kill_process(guard_of(&target)?, Signal::STOP)?;
    let began = Instant::now();
    target.running.signal(Signal::TERM)?;
    let finished = target.finish()?;
    ensure!(finished.signal == Some(15), "{finished:?}");
    attached.finish()?.check_books()?;
    ensure!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());

    let target = run().start()?;
    let attached = attach(&target, "true")?;
    kill_process(guard_of(&target)?, Signal::STOP)?;
    let began = Instant::now();
    attached.stop()?.check_books()?;
    ensure!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    target.finish().map(drop)
}
