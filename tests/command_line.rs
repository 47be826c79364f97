//! Command-line suite: what scripts rely on, the exit codes and sentences of each way to fail, and every way to end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tracer_tests::probes::changed_bytes;
use tracer_tests::process::{Finished, Running, run};
use tracer_tests::suite::{self, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Tracer, ml_tracer};
use tracer_tests::workspace;

fn main() -> ExitCode {
    const PROGRAM: &[Need] = &[Need::Program];
    const KERNEL: &[Need] = &[Need::Program, Need::Kernel];
    const SERVER: &[Need] = &[Need::Program, Need::Kernel, Need::Command("python3")];
    let cases = vec![
        case("help_names_every_command", PROGRAM, help),
        case("wrong_usage_is_2", PROGRAM, wrong_usage),
        case("no_such_process_is_4", KERNEL, no_such_process),
        case("processes_are_found_by_name_and_port", SERVER, found),
        case("kernel_thread_is_5", KERNEL, kernel_thread),
        case("nothing_to_trace_is_5", KERNEL, nothing_to_trace),
        case("not_root_is_3", KERNEL, not_root),
        case("bad_map_is_2_and_says_where", PROGRAM, bad_map),
        case("hostile_maps_end_quickly", PROGRAM, hostile_maps),
        case("check_map_takes_good_maps", PROGRAM, good_maps),
        case("unwritable_export_is_named", KERNEL, unwritable_export),
        case("dry_run_places_nothing", KERNEL, dry_run),
        case("symbols_of_files_and_processes", KERNEL, symbols),
        case("doctor_knows_this_machine", KERNEL, doctor),
        case("duration_ends_the_trace", KERNEL, duration),
        case("signals_end_the_trace", KERNEL, signals),
        case("death_of_the_target_ends_the_trace", KERNEL, death_of_target),
        case("attached_line_has_count_and_time", KERNEL, attached_line),
        case("console_owns_standard_output", KERNEL, console),
        case("perfetto_file_is_chrome_trace", KERNEL, perfetto),
        case("run_of_a_missing_command", KERNEL, run_of_missing),
        case("totals_come_when_the_duration_is_over", KERNEL, run_for_a_while),
        case("totals_come_again_and_again_where_asked_for", KERNEL, interval),
        case("closed_output_is_no_failure", KERNEL, closed_output),
        case("summary_is_made_before_attaching", KERNEL, summary),
        case("a_file_is_named_once", KERNEL, file_named_twice),
        case("pipe_without_a_reader_is_refused", KERNEL, pipe_without_reader),
        case("end_of_the_target_while_attaching_is_4", KERNEL, end_while_attaching),
        case("nohup_holds_for_tracer_and_command", KERNEL, nohup),
        case("script_is_run_without_a_warning", KERNEL, script),
    ];
    suite::main(cases)
}

/// Checks the exit code and that standard error is one sentence that speaks of `subject`.
fn refused(finished: &Finished, code: i32, subject: &str) -> Result<()> {
    ensure!(finished.code == Some(code), "exit code {code} expected: {finished:?}");
    ensure!(finished.errors.contains(subject), "nothing about `{subject}`: {finished:?}");
    let sentence = finished.errors.trim_end();
    ensure!(sentence.starts_with("ml-tracer: ") && !sentence.contains("panicked"), "{finished:?}");
    ensure!(sentence.lines().count() == 1 && sentence.len() < 400, "not one sentence: {sentence}");
    ensure!(finished.output.is_empty(), "something on standard output: {finished:?}");
    Ok(())
}

fn help() -> Result<()> {
    let help = ml_tracer(["--help"])?;
    ensure!(help.code == Some(0) && help.errors.is_empty(), "{help:?}");
    for command in ["attach", "top", "run", "symbols", "check-map", "doctor"] {
        ensure!(help.output.contains(command), "{command} is not in the help: {}", help.output);
        let own = ml_tracer([command, "--help"])?;
        ensure!(own.code == Some(0) && own.output.contains("Usage"), "{own:?}");
    }
    let attach = ml_tracer(["attach", "--help"])?.output;
    for option in ["--pid", "--map", "--duration", "--export", "--summary", "--dry-run"] {
        ensure!(attach.contains(option), "{option} is not in the help of attach");
    }
    let version = ml_tracer(["--version"])?;
    ensure!(version.code == Some(0) && version.output.starts_with("ml-tracer "), "{version:?}");
    Ok(())
}

fn wrong_usage() -> Result<()> {
    let wrong: &[&[&str]] = &[
        &[],
        &["atach"],
        &["attach"],
        &["attach", "--pid"],
        &["attach", "--pid", "one"],
        &["symbols", "--pid", "one"],
        &["symbols", "--pid", "1", "/bin/ls"],
        &["attach", "--pid", "-1"],
        &["attach", "--pid", "1", "--export", "fax"],
        &["attach", "--pid", "1", "--export", "jsonl"],
        &["attach", "--pid", "1", "--duration", "soon"],
        &["attach", "--pid", "1", "--depth", "0"],
        &["run"],
        &["symbols"],
        &["check-map"],
    ];
    for arguments in wrong {
        let finished = ml_tracer(*arguments)?;
        ensure!(finished.code == Some(2), "{arguments:?}: {finished:?}");
        ensure!(!finished.errors.is_empty() && finished.output.is_empty(), "{arguments:?}: {finished:?}");
    }
    Ok(())
}

fn no_such_process() -> Result<()> {
    let mut ended = Command::new("true").spawn()?;
    let pid = ended.id().to_string();
    ended.wait()?;
    for pid in [pid.as_str(), "4194305"] {
        refused(&ml_tracer(["attach", "--pid", pid])?, 4, pid)?;
    }
    Ok(())
}

fn kernel_thread() -> Result<()> {
    let is_kernel_thread = |status: &str| {
        status.lines().any(|line| line == "Kthread:\t1") || status.lines().any(|line| line == "PPid:\t2")
    };
    let thread = fs::read_dir("/proc")?
        .flatten()
        .find(|entry| fs::read_to_string(entry.path().join("status")).is_ok_and(|status| is_kernel_thread(&status)))
        .context("no kernel thread is to be seen here")?;
    let pid = thread.file_name().to_string_lossy().into_owned();
    refused(&ml_tracer(["attach", "--pid", &pid])?, 5, "kernel thread")
}

fn nothing_to_trace() -> Result<()> {
    let mut command = Command::new("sleep");
    command.arg("1000");
    let target = Running::start(command)?;
    let pid = target.pid().to_string();
    refused(&ml_tracer(["attach", "--pid", &pid])?, 5, &pid)?;
    // Nor is there in what it has forked.
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 30 & echo begun; wait"]);
    let mut shell = Running::start(command)?;
    shell.wait_output("begun")?;
    refused(&ml_tracer(["attach", "--pid", &shell.pid().to_string()])?, 5, &shell.pid().to_string())?;
    // `run` keeps to the command's own exit code, and says that there was nothing.
    let finished = ml_tracer(["run", "--", "sh", "-c", "exit 9"])?;
    ensure!(finished.code == Some(9) && finished.errors.contains("nothing was traced"), "{finished:?}");
    Ok(())
}

fn not_root() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let as_nobody = |program: &Path| -> Result<Command> {
        let copy = folder.path().join(program.file_name().context("a program has a name")?);
        fs::copy(program, &copy)?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(copy).current_dir("/");
        Ok(command)
    };
    let mut command = as_nobody(&build("cpp_pipeline")?)?;
    command.arg("--gate");
    let target = Target::start_command(command)?;
    let mut command = as_nobody(&workspace::ml_tracer())?;
    command.args(["attach", "--pid", &target.pid().to_string()]);
    let finished = run(command)?;
    refused(&finished, 3, "root")?;
    ensure!(finished.errors.contains("CAP_") || finished.errors.contains("sudo"), "{finished:?}");
    Ok(())
}

const BAD_MAPS: &[(&str, &str, &str)] = &[
    // The map, the place of the mistake, a word of the message.
    ("schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethds: [fit]\n", ":4:1", "methods"),
    ("schema: ml-tracer/v1\nlibrary: a\nlanguage: cobol\n", ":3:11", "cobol"),
    ("schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: 7\n", ":4:10", "type"),
    ("schema: ml-tracer/v9\nlibrary: a\nlanguage: cpp\nmethods: [fit]\n", ":1:9", "ml-tracer/v1"),
    ("library: a\nlanguage: cpp\nmethods: [fit]\n", ":", "schema"),
    ("schema: ml-tracer/v1\nlibrary: a\nlanguage: cpp\nmethods: [fit\n", ":", ""),
    ("", ":", "symbol map"),
];

fn bad_map() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("map.yaml");
    let name = file.to_string_lossy().into_owned();
    for (map, place, word) in BAD_MAPS {
        fs::write(&file, map)?;
        let checked = ml_tracer(["check-map", &name])?;
        ensure!(checked.code == Some(2), "{map}: {checked:?}");
        let said = format!("{}{}", checked.errors, checked.output);
        ensure!(said.contains(&format!("{name}{place}")), "no {name}{place} for {map}: {checked:?}");
        ensure!(said.contains(word), "nothing about `{word}` for {map}: {checked:?}");
        let attached = ml_tracer(["attach", "--pid", &std::process::id().to_string(), "--map", &name])?;
        ensure!(attached.code == Some(2) && attached.errors.contains(&name), "{map}: {attached:?}");
    }
    let missing = ml_tracer(["check-map", "/no/such/map.yaml"])?;
    ensure!(missing.code == Some(2) && missing.errors.contains("/no/such/map.yaml"), "{missing:?}");
    Ok(())
}

fn hostile_maps() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("map.yaml");
    let levels = (0..12).fold("a: &a0 [x]\n".to_owned(), |bomb, level| {
        let line = format!("b{level}: &a{} [{}]\n", level + 1, vec![format!("*a{level}"); 10].join(","));
        bomb + &line
    });
    let hostile: [(&str, Vec<u8>); 5] = [
        ("aliases", levels.into_bytes()),
        ("depth", vec![b'['; 100_000]),
        ("binary", vec![0xff; 4096]),
        ("documents", b"---\n".repeat(200_000)),
        ("large", b"# nothing but comment\n".repeat(5_000_000)),
    ];
    for (name, map) in hostile {
        fs::write(&file, map)?;
        let started = Instant::now();
        let finished = ml_tracer(["check-map".as_ref(), file.as_os_str()])?;
        ensure!(finished.code == Some(2) && !finished.errors.contains("panicked"), "{name}: {finished:?}");
        ensure!(started.elapsed() < Duration::from_secs(10), "{name} took {:?}", started.elapsed());
    }
    Ok(())
}

fn good_maps() -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(workspace::root().join("symbols"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.push(workspace::tests("targets/c_library/map.yaml"));
    ensure!(files.len() > 3, "the built-in maps are not where expected");
    let mut arguments = vec!["check-map".into()];
    arguments.extend(files.into_iter().map(std::path::PathBuf::into_os_string));
    let finished = ml_tracer(arguments)?;
    ensure!(finished.code == Some(0), "{finished:?}");
    ensure!(finished.output.contains("\n  methods: ") && !finished.output.contains("\\n"), "{finished:?}");
    Ok(())
}

fn unwritable_export() -> Result<()> {
    let target = Target::start("cpp_pipeline", &[])?;
    let pid = target.pid().to_string();
    let finished = ml_tracer(["attach", "--pid", &pid, "--export", "jsonl=/no/such/folder/spans.jsonl"])?;
    ensure!(finished.code.is_some_and(|code| code > 0), "{finished:?}");
    ensure!(finished.errors.contains("/no/such/folder/spans.jsonl"), "{finished:?}");
    Ok(())
}

fn dry_run() -> Result<()> {
    let program = build("cpp_pipeline")?;
    let target = Target::start("cpp_pipeline", &[])?;
    let pid = target.pid().to_string();
    let finished = ml_tracer(["attach", "--dry-run", "--pid", &pid])?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let said = format!("{}{}", finished.output, finished.errors);
    for name in ["Pipeline.predict", "StandardScaler.transform", "LogisticRegression.predict_proba"] {
        ensure!(said.contains(name), "{name} is not in the plan: {said}");
    }
    ensure!(!said.contains("ml-tracer: attached"), "{said}");
    ensure!(changed_bytes(target.pid(), &program)? == 0, "a probe is there");
    Ok(())
}

fn symbols() -> Result<()> {
    let program = build("cpp_pipeline")?;
    let target = Target::start("cpp_pipeline", &[])?;
    let pid = target.pid().to_string();
    let of_process = ml_tracer(["symbols", "--pid", &pid])?;
    let of_file = ml_tracer(["symbols".as_ref(), program.as_os_str()])?;
    for listing in [&of_process, &of_file] {
        ensure!(listing.code == Some(0), "{listing:?}");
        for word in ["Pipeline", "predict", "StandardScaler", "transform"] {
            ensure!(listing.output.contains(word), "{word} is not in: {}", listing.output);
        }
    }
    let listing = ml_tracer(["symbols", "--json", "--pid", &pid])?;
    let parsed: Value = serde_json::from_str(&listing.output).context("symbols --json")?;
    ensure!(parsed.to_string().contains("StandardScaler"), "{parsed}");
    let missing = ml_tracer(["symbols", "/no/such/file"])?;
    ensure!(missing.code.is_some_and(|code| code > 0) && missing.errors.contains("/no/such/file"), "{missing:?}");
    let no_elf = ml_tracer(["symbols", "/etc/passwd"])?;
    ensure!(no_elf.code.is_some_and(|code| code > 0) && no_elf.errors.contains("/etc/passwd"), "{no_elf:?}");
    Ok(())
}

fn doctor() -> Result<()> {
    let report = ml_tracer(["doctor"])?;
    ensure!(report.code == Some(0), "{report:?}");
    for word in ["uprobe", "BTF", "ring buffer", "lockdown"] {
        ensure!(report.output.to_lowercase().contains(&word.to_lowercase()), "{word} is not in: {}", report.output);
    }
    let report = ml_tracer(["doctor", "--json"])?;
    let parsed: Value = serde_json::from_str(&report.output).context("doctor --json")?;
    ensure!(parsed.is_object(), "{parsed}");
    Ok(())
}

fn found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(format!("resting-{}", std::process::id()));
    fs::copy(build("cpp_pipeline")?, &program)?;
    let mut rest = Command::new(&program);
    rest.args(["--requests", "20", "--gate"]);
    let rest = Running::start(rest)?;
    let mut serve = Command::new("python3");
    serve.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]);
    let mut server = Running::start(serve)?;
    let line = server.wait_output("Serving HTTP")?;
    let port = line.split_once(" port ").and_then(|(_, rest)| rest.split(' ').next()).context("a port")?.to_owned();

    // A server of files has nothing to trace.
    for (option, value, pid, code) in
        [("--name", format!("rest?ng-{}*", std::process::id()), rest.pid(), 0), ("--port", port, server.pid(), 5)]
    {
        let summary = folder.path().join("summary");
        let words = ["attach", option, &value, "--duration", "300ms", "--summary", &summary.to_string_lossy()];
        let attached = ml_tracer(words)?;
        ensure!(attached.code == Some(code) && attached.errors.contains(&format!(": {pid}\n")), "{attached:?}");
        ensure!(attached.errors.contains("nothing is traced yet") == (code == 5), "{attached:?}");
        let report: Value = serde_json::from_slice(&fs::read(&summary)?)?;
        ensure!(report["processes"][0]["pid"] == pid && report["processes"][1].is_null(), "{report}");
    }
    refused(&ml_tracer(["attach", "--name", "no-such-*"])?, 4, "no process named `no-such-*`")?;
    refused(&ml_tracer(["attach", "--port", "1"])?, 4, "no process listening on TCP port 1")
}

fn duration() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--duration", "2s"]).start()?;
    target.batch()?;
    let started = Instant::now();
    let trace = attached.finish()?;
    ensure!(started.elapsed() < Duration::from_secs(20), "it went on for {:?}", started.elapsed());
    trace.check_whole()?;
    ensure!(trace.spans.count("Pipeline.predict") == 12, "{:?}", trace.summary);
    ensure!(target.finish()?.code == Some(0), "the target ended badly");
    Ok(())
}

fn interval() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let tracer = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--interval=200ms", "--duration", "2s"]);
    let mut attached = tracer.start()?;
    target.batch()?;
    // With a row for each method, and the same again at the end.
    attached.running.wait_errors("Pipeline.predict ")?;
    let trace = attached.finish()?;
    let rows = trace.finished.errors.lines().filter(|line| line.starts_with("Pipeline.predict "));
    let calls: Vec<&str> = rows.filter_map(|line| line.split_whitespace().nth(1)).collect();
    ensure!(calls.len() >= 2 && calls.last() == Some(&"12"), "{}", trace.finished.errors);
    let in_summary = trace.summary.0["methods"].as_array().context("methods in the summary")?;
    let row = in_summary.iter().find(|row| row["method"] == "Pipeline.predict").context("the row of a method")?;
    ensure!(row["calls"] == 12 && row["errors"] == 0, "{row}");
    let ordered = ["self_ns", "total_ns"].map(|field| row[field].as_u64().unwrap_or_default());
    ensure!(0 < ordered[0] && ordered[0] <= ordered[1], "{row}");
    Ok(())
}

fn signals() -> Result<()> {
    for signal in [Signal::INT, Signal::TERM] {
        let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
        let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
        target.batch()?;
        attached.running.signal(signal)?;
        let trace = attached.finish()?;
        trace.check_whole()?;
        ensure!(trace.spans.count("Pipeline.predict") == 12, "{signal:?}: {:?}", trace.summary);
    }
    Ok(())
}

fn death_of_target() -> Result<()> {
    for kill in [false, true] {
        let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
        let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
        target.batch()?;
        if kill {
            target.running.signal(Signal::KILL)?;
        }
        target.finish()?;
        let trace = attached.finish()?;
        trace.check_whole()?;
        ensure!(trace.spans.count("Pipeline.predict") == 12, "killed {kill}: {:?}", trace.summary);
    }
    Ok(())
}

fn attached_line() -> Result<()> {
    let target = Target::start("cpp_pipeline", &[])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    let line = attached.announcement.clone();
    let trace = attached.stop()?;
    let words: Vec<&str> = line.split(' ').collect();
    let ["ml-tracer:", "attached", functions, "functions", "in", milliseconds, "ms"] = words.as_slice() else {
        anyhow::bail!("the line is `{line}`");
    };
    ensure!(functions.parse() == Ok(trace.summary.functions()), "{line}, {:?}", trace.summary);
    ensure!(milliseconds.parse::<f64>().is_ok_and(|number| number > 0.0), "{line}");
    ensure!(trace.summary.functions() >= 10, "{:?}", trace.summary);
    Ok(())
}

fn console() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let quiet = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let quiet = quiet.stop()?;
    ensure!(quiet.finished.output.is_empty(), "{:?}", quiet.finished);
    let shown = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--export", "console"]).start()?;
    target.batch()?;
    let shown = shown.stop()?;
    for name in ["Pipeline.predict", "StandardScaler.transform", "LogisticRegression.predict_proba"] {
        let lines = shown.finished.output.lines().filter(|line| line.contains(name)).count();
        ensure!(lines >= 1, "{name} is not shown: {}", shown.finished.output);
    }
    Ok(())
}

fn perfetto() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let tracer = Tracer::attach(target.pid())?.map(NEST_ALL)?;
    let file = tracer.file("trace.json");
    let attached = tracer.arguments(["--export", &format!("perfetto={}", file.display())]).start()?;
    target.batch()?;
    let trace = attached.stop()?;
    let parsed: Value = serde_json::from_str(&fs::read_to_string(&file)?).context("the perfetto file")?;
    let events = parsed.get("traceEvents").unwrap_or(&parsed).as_array().context("no list of events")?;
    let complete = events.iter().filter(|event| event.get("ph").and_then(Value::as_str) == Some("X"));
    ensure!(complete.count() as u64 == trace.summary.spans(), "not an event a span: {:?}", trace.summary);
    Ok(())
}

fn run_of_missing() -> Result<()> {
    let finished = ml_tracer(["run", "--", "/no/such/program"])?;
    ensure!(finished.code.is_some_and(|code| code > 0), "{finished:?}");
    ensure!(finished.errors.contains("/no/such/program"), "{finished:?}");
    Ok(())
}

/// The command outlives the tracing, and finds the totals written.
fn run_for_a_while() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("summary.json").display().to_string();
    let command = format!("sleep 1.5; cat {file}; exit 7");
    let finished = ml_tracer(["run", "--duration", "100ms", "--summary", &file, "--", "sh", "-c", &command])?;
    ensure!(finished.code == Some(7) && finished.output.contains("identity_holds"), "{finished:?}");
    Ok(())
}

fn closed_output() -> Result<()> {
    let program = workspace::ml_tracer();
    let map = workspace::root().join("symbols/generic-cpp.yaml");
    for arguments in [format!("check-map {}", map.display()), "doctor".into(), "doctor --json".into()] {
        let mut command = Command::new("sh");
        // The reader is gone before the first word is written.
        command.arg("-c").arg(format!("{{ sleep 0.2; {} {arguments}; echo code $? >&2; }} | true", program.display()));
        let finished = run(command)?;
        ensure!(finished.errors.trim() == "code 0", "{arguments}: {finished:?}");
    }
    Ok(())
}

fn summary() -> Result<()> {
    let run_with = |file: &str| ml_tracer(["run", "--summary", file, "--", "sh", "-c", "echo ran; exit 9"]);
    refused(&run_with("/no/such/folder/summary.json")?, 2, "/no/such/folder/summary.json")?;
    // Found out when the command has long run: told, but its exit code stands.
    let finished = run_with("/dev/full")?;
    ensure!(finished.code == Some(9) && finished.output.contains("ran"), "{finished:?}");
    ensure!(finished.errors.contains("/dev/full"), "{finished:?}");
    Ok(())
}

fn file_named_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("spans").display().to_string();
    let jsonl = format!("jsonl={file}");
    let perfetto = format!("perfetto={}/./spans", folder.path().display());
    for second in [["--export", &jsonl], ["--export", &perfetto], ["--summary", &file]] {
        let [option, value] = second;
        refused(&ml_tracer(["run", "--export", &jsonl, option, value, "--", "true"])?, 2, "twice")?;
    }
    let null = ["run", "--export", "jsonl=/dev/null", "--export", "perfetto=/dev/null", "--", "sh", "-c", "exit 9"];
    ensure!(ml_tracer(null)?.code == Some(9), "/dev/null takes as much as one likes");
    Ok(())
}

fn pipe_without_reader() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("pipe").display().to_string();
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "no pipe");
    let export = format!("jsonl={pipe}");
    refused(&ml_tracer(["run", "--export", &export, "--", "true"])?, 2, "nobody reads")?;
    refused(&ml_tracer(["run", "--summary", &pipe, "--", "true"])?, 2, "nobody reads")
}

fn end_while_attaching() -> Result<()> {
    for delay in [0, 20, 40, 60, 80, 100, 120, 140] {
        let target = Target::start("cpp_pipeline", &[])?;
        let pid = target.pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            target.running.signal(Signal::KILL)?;
            target.finish()
        });
        let finished = ml_tracer(["attach", "--pid", &pid.to_string()])?;
        match finished.code {
            Some(0) => ensure!(finished.errors.contains("attached"), "{finished:?}"),
            _ => refused(&finished, 4, &pid.to_string())?,
        }
        ensure!(killer.join().is_ok_and(|killed| killed.is_ok()), "the target could not be killed");
    }
    Ok(())
}

fn nohup() -> Result<()> {
    let mut command = Command::new("sh");
    let program = workspace::ml_tracer();
    let inner = "grep SigIgn /proc/self/status; kill -HUP $PPID; sleep 0.3; exit 3";
    command.arg("-c").arg(format!("trap '' HUP; exec {} run -- sh -c '{inner}'", program.display()));
    let finished = run(command)?;
    ensure!(finished.code == Some(3), "the hang-up was passed on: {finished:?}");
    let ignored = finished.output.split_whitespace().nth(1).context("no mask of ignored signals")?;
    ensure!(u64::from_str_radix(ignored, 16)? & 1 == 1, "the command does not ignore it: {finished:?}");
    Ok(())
}

fn script() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("script");
    fs::write(&file, "#!/bin/sh\nexit 9\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let finished = ml_tracer(["run".as_ref(), "--".as_ref(), file.as_os_str()])?;
    ensure!(finished.code == Some(9) && !finished.errors.contains("warning"), "{finished:?}");
    Ok(())
}
