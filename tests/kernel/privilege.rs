//! The tracer with exactly the privilege that it asks for: what works then, and what it says of what is missing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tracer_tests::process::{Finished, Running, run};
use tracer_tests::python::SYSTEM;
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::build;
use tracer_tests::tracer::Summary;
use tracer_tests::workspace;

/// What ml-tracer asks for, as the kernel and container runtimes name it.
const THREE: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"];

/// Who owns nothing.
const NOBODY: u32 = 65_534;

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel, Need::Python(SYSTEM)];
    const CONTAINER: &[Need] = &[Need::Program, Need::Kernel, Need::Python(SYSTEM), Need::Containers];
    vec![
        case("three_capabilities_are_enough", NEEDS, || all_works(&Place::Bare)),
        case("each_missing_capability_is_named", NEEDS, || missing_ones_are_named(&Place::Bare)),
        case("three_capabilities_are_enough_in_a_container", CONTAINER, || {
            all_works(&Place::Container { user: NOBODY })
        }),
        case("root_of_a_container_with_three_capabilities", CONTAINER, || all_works(&Place::Container { user: 0 })),
        case("each_missing_capability_is_named_in_a_container", CONTAINER, || {
            missing_ones_are_named(&Place::Container { user: NOBODY })
        }),
        case("capabilities_of_a_user_namespace_do_not_count", NEEDS, user_namespace),
        case("files_that_may_not_be_read_are_named", NEEDS, forbidden_files),
    ]
}

/// Where the tracer runs.
enum Place {
    /// Beside its target.
    Bare,
    /// In a container that shares nothing with its target but the process numbers.
    Container { user: u32 },
}

/// A folder that everybody may write to, with the tracer in it and a map.
struct Room(TempDir);

impl Room {
    fn new() -> Result<Self> {
        let room = Self(tempfile::tempdir()?);
        fs::set_permissions(room.0.path(), Permissions::from_mode(0o777))?;
        fs::copy(workspace::ml_tracer(), room.0.path().join("ml-tracer"))?;
        fs::copy(workspace::tests("targets/steady/map.yaml"), room.0.path().join("map.yaml"))?;
        Ok(room)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The tracer with these capabilities and arguments, run to its end.
    fn tracer(&self, place: &Place, capabilities: &[&str], arguments: &[&str]) -> Result<Finished> {
        let mut command = match place {
            Place::Bare => bare(self.path(), capabilities),
            Place::Container { user } => return self.contained(*user, capabilities, arguments),
        };
        command.args(arguments);
        run(command)
    }

    /// The same in a container, whose working folder is this one.
    fn contained(&self, user: u32, capabilities: &[&str], arguments: &[&str]) -> Result<Finished> {
        let bundle = tempfile::tempdir()?;
        let root = bundle.path().join("root");
        for folder in ["proc", "sys", "dev", "usr", "lib", "lib64", "room"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::write(
            bundle.path().join("config.json"),
            configuration(user, capabilities, arguments, self.path()).to_string(),
        )?;
        let mut command = Command::new("unshare");
        // The runtime wants the newer kind of control groups, which it is not to use: in sight of itself alone.
        command.args(["--mount", "sh", "-c", "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec crun \"$@\"", "sh"]);
        command.arg("--cgroup-manager=disabled").arg("--root").arg(bundle.path().join("state"));
        command.arg("run").arg("--bundle").arg(bundle.path());
        command.arg(format!("ml-tracer-{}", bundle.path().file_name().unwrap_or_default().to_string_lossy()));
        run(command)
    }

    /// Attaches for a moment.
    fn attach(&self, place: &Place, capabilities: &[&str], pid: u32, mode: &[&str]) -> Result<Finished> {
        let pid = pid.to_string();
        let inside = match place {
            Place::Bare => self.path().to_string_lossy().into_owned(),
            Place::Container { .. } => "/room".to_owned(),
        };
        let (map, spans, summary) =
            (format!("{inside}/map.yaml"), format!("jsonl={inside}/spans.jsonl"), format!("{inside}/summary.json"));
        let arguments = ["attach", "--pid", &pid, "--duration", "1s", "--map", &map, "--export", &spans];
        let arguments: Vec<&str> = arguments.iter().chain(&["--summary", &summary]).chain(mode).copied().collect();
        // Nobody may write over the file of somebody else.
        for file in ["spans.jsonl", "summary.json"] {
            let _ = fs::remove_file(self.path().join(file));
        }
        self.tracer(place, capabilities, &arguments)
    }
}

/// The tracer of a folder as nobody with these capabilities.
fn bare(room: &Path, capabilities: &[&str]) -> Command {
    let mut list = "-all".to_owned();
    for capability in capabilities {
        list.push_str(",+");
        list.push_str(capability.trim_start_matches("CAP_").to_ascii_lowercase().as_str());
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    command.args(["--bounding-set", &list, "--inh-caps", &list, "--ambient-caps", &list, "--no-new-privs"]);
    command.arg(room.join("ml-tracer")).current_dir("/");
    command
}

/// As the runtime specification of the Open Container Initiative has it.
fn configuration(user: u32, capabilities: &[&str], arguments: &[&str], room: &Path) -> Value {
    let bind = |from: &str, to: &str, how: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", how]});
    let arguments: Vec<&str> = ["/room/ml-tracer"].iter().chain(arguments).copied().collect();
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "root", "readonly": true},
        "process": {
            "user": {"uid": user, "gid": user},
            "args": arguments,
            "cwd": "/",
            "env": ["PATH=/usr/bin"],
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "inheritable": capabilities,
                "permitted": capabilities,
                "ambient": capabilities,
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            bind("/usr", "/usr", "ro"),
            bind("/lib", "/lib", "ro"),
            bind("/lib64", "/lib64", "ro"),
            bind(&room.to_string_lossy(), "/room", "rw"),
        ],
        // No pid namespace: the one of the host.
        "linux": {"namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
    })
}

/// The steady target in C++, and the one in Python.
fn native() -> Result<Running> {
    Running::start(Command::new(build("steady")?))
}

fn python() -> Result<Running> {
    let mut running = Running::start(SYSTEM.command("targets/steady/target.py")?)?;
    running.wait_output("ready")?;
    Ok(running)
}

/// The target goes on as if nothing had been.
fn ends_well(target: Running) -> Result<()> {
    target.signal(Signal::TERM)?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0) && finished.output.contains("calls="), "{finished:?}");
    Ok(())
}

fn all_works(place: &Place) -> Result<()> {
    let room = Room::new()?;
    let report = room.tracer(place, &THREE, &["doctor"])?;
    ensure!(report.code == Some(0) && !report.output.contains("bad "), "{report:?}");

    let target = native()?;
    let traced = room.attach(place, &THREE, target.pid(), &[])?;
    has_spans(&room, &traced)?;
    ends_well(target)?;

    let target = python()?;
    for mode in ["watch", "frames"] {
        let traced = room.attach(place, &THREE, target.pid(), &["--python", mode])?;
        has_spans(&room, &traced)?;
        ensure!(!traced.errors.contains("exceptions in process"), "the probe of exceptions: {traced:?}");
    }
    ends_well(target)
}

fn has_spans(room: &Room, traced: &Finished) -> Result<()> {
    ensure!(traced.code == Some(0), "{traced:?}");
    let summary = Summary::read(&room.path().join("summary.json"))?;
    ensure!(summary.spans() > 20 && summary.lost() == 0, "{}", summary.0);
    Ok(())
}

fn missing_ones_are_named(place: &Place) -> Result<()> {
    let room = Room::new()?;
    let target = python()?;
    for missing in THREE {
        let others: Vec<&str> = THREE.into_iter().filter(|capability| *capability != missing).collect();
        let report = room.tracer(place, &others, &["doctor"])?;
        let names_it = report.output.lines().any(|line| line.starts_with("bad") && line.contains(missing));
        ensure!(report.code == Some(3) && names_it, "{report:?}");
        for mode in ["watch", "frames"] {
            let refused = room.attach(place, &others, target.pid(), &["--python", mode])?;
            ensure!(refused.code == Some(3) && refused.errors.contains(missing), "{missing}, {mode}: {refused:?}");
            let names_others = others.iter().any(|other| refused.errors.contains(other));
            ensure!(!names_others, "{missing} alone is missing: {refused:?}");
        }
    }
    ends_well(target)
}

fn user_namespace() -> Result<()> {
    let room = Room::new()?;
    let target = native()?;
    let pid = target.pid().to_string();
    for (arguments, words) in [(vec!["doctor"], "user namespace"), (vec!["attach", "--pid", &pid], "user namespace")] {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).arg(room.path().join("ml-tracer")).args(arguments);
        let finished = run(command)?;
        let said = format!("{}{}", finished.output, finished.errors);
        ensure!(finished.code == Some(3) && said.contains(words) && said.contains("CAP_BPF"), "{finished:?}");
    }
    ends_well(target)
}

fn forbidden_files() -> Result<()> {
    let room = Room::new()?;
    // Not below a folder that others may enter.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
    let program = folder.path().join("steady");
    fs::copy(build("steady")?, &program)?;
    let target = Running::start(Command::new(&program))?;
    let refused = room.attach(&Place::Bare, &THREE, target.pid(), &[])?;
    let names = ["may not be read", "CAP_DAC_READ_SEARCH", "Permission denied"];
    ensure!(refused.code == Some(3) && names.iter().all(|name| refused.errors.contains(name)), "{refused:?}");
    let four: Vec<&str> = THREE.into_iter().chain(["CAP_DAC_READ_SEARCH"]).collect();
    let traced = room.attach(&Place::Bare, &four, target.pid(), &[])?;
    has_spans(&room, &traced)?;
    ends_well(target)
}
