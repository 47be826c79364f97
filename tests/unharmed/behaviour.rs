//! Whatever the target does.

use anyhow::{Context, Result, ensure};
use tracer_tests::process::{Finished, poll, run};
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    const MODELS: &[Need] = &[Need::Program, Need::Kernel, Need::Models];
    vec![
        case("throwing_through_traced_frames_100_times", NEEDS, throwing),
        case("every_way_out_of_a_frame", NEEDS, every_way_out),
        case("uncaught_exception_still_aborts", NEEDS, uncaught_exception),
        case("pipelines_and_threads", NEEDS, pipelines_and_threads),
        case("recursion", NEEDS, recursion),
        case("signals", NEEDS, signals),
        case("threads_that_switch_stacks", NEEDS, fibers),
        case("fork_inside_a_call", NEEDS, fork_inside),
        case("exec_inside_a_call", NEEDS, exec_inside),
        case("modules_that_come_and_go", NEEDS, modules),
        case("strict_seccomp_filter", NEEDS, seccomp),
        case("nearly_full_stack", NEEDS, deep_stack),
        case("odd_shapes_of_code", NEEDS, odd_shapes),
        case("c_and_rust", NEEDS, c_and_rust),
        case("python_models", MODELS, python_models),
        case("run_passes_on_how_the_command_ended", NEEDS, run_passes_on),
    ]
}

/// Runs a target for some batches alone and with the tracer attached; both must say and do the same.
fn compare(name: &str, arguments: &[&str], batches: u32) -> Result<Trace> {
    compare_targets(|| Target::start(name, arguments), batches, NEST_ALL)
        .with_context(|| format!("{name} {}", arguments.join(" ")))
}

fn compare_targets(start: impl Fn() -> Result<Target>, batches: u32, map: &str) -> Result<Trace> {
    let mut alone = start()?;
    for batch in 0..batches {
        work(&mut alone, batch)?;
    }
    let alone = alone.finish()?;

    let mut target = start()?;
    let attached = Tracer::attach(target.pid())?.map(map)?.start()?;
    for batch in 0..batches {
        work(&mut target, batch)?;
    }
    let traced = target.finish()?;
    // The target's death has ended the tracer.
    let trace = attached.finish()?;
    same(&traced, &alone)?;
    trace.check_books()?;
    Ok(trace)
}

/// A batch; one that ends the process is as good as any other.
fn work(target: &mut Target, batch: u32) -> Result<()> {
    let Err(error) = target.batch() else { return Ok(()) };
    poll("the end of the process", || Ok(target.running.has_ended()?.then_some(())))
        .map_err(|_| error.context(format!("batch {batch}")))
}

fn same(traced: &Finished, alone: &Finished) -> Result<()> {
    ensure!(
        (traced.code, traced.signal, &traced.output) == (alone.code, alone.signal, &alone.output),
        "traced: {traced:?}\nalone: {alone:?}"
    );
    Ok(())
}

fn throwing() -> Result<()> {
    let program = build("cpp_exceptions")?;
    let words = [program.as_os_str(), "--requests".as_ref(), "20".as_ref()];
    let mut command = std::process::Command::new(&program);
    command.args(["--requests", "20"]);
    let alone = run(command)?;
    ensure!(alone.code == Some(7), "{alone:?}");
    for round in 0..100 {
        let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
        same(&trace.finished, &alone).with_context(|| format!("run {round} of 100"))?;
        trace.check_whole().with_context(|| format!("run {round} of 100"))?;
        ensure!(trace.summary.entries() == 60, "run {round} of 100: {:?}", trace.summary);
    }
    Ok(())
}

fn every_way_out() -> Result<()> {
    for build in ["cpp_exceptions", "cpp_exceptions_marked"] {
        for mode in ["throw", "middle", "rethrow", "guarded", "jump", "exit-thread", "cancel"] {
            compare(build, &["--mode", mode, "--requests", "40"], 2)?;
        }
    }
    Ok(())
}

fn uncaught_exception() -> Result<()> {
    let trace = compare("cpp_exceptions", &["--mode", "terminate", "--requests", "10"], 1)?;
    ensure!(trace.summary.entries() == 30, "{:?}", trace.summary);
    Ok(())
}

fn pipelines_and_threads() -> Result<()> {
    for build in ["", "_debug", "_non_pie", "_static", "_marked", "_frames"] {
        compare(&format!("cpp_pipeline{build}"), &["--requests", "50", "--threads", "3"], 2)?;
    }
    compare("cpp_threads", &["--short-lived", "100"], 2).map(drop)
}

fn recursion() -> Result<()> {
    compare("cpp_recursion", &["--deepest", "200"], 2).map(drop)
}

fn signals() -> Result<()> {
    for mode in ["plain", "alternate", "above"] {
        compare("cpp_signals", &["--mode", mode], 2)?;
    }
    Ok(())
}

fn fibers() -> Result<()> {
    for mode in ["plain", "throw", "signal"] {
        for memory in ["heap", "mapped"] {
            compare("cpp_fibers", &["--mode", mode, "--memory", memory, "--threads", "3"], 2)?;
        }
    }
    Ok(())
}

fn fork_inside() -> Result<()> {
    compare("cpp_fork", &["--mode", "fork"], 2).map(drop)
}

fn exec_inside() -> Result<()> {
    compare("cpp_fork", &["--mode", "fork-exec"], 2)?;
    compare("cpp_fork", &["--mode", "exec"], 1).map(drop)
}

fn modules() -> Result<()> {
    let plugin = build("libplugin.so")?;
    let plugin = plugin.to_str().context("the path is text")?;
    let map =
        format!("{NEST_ALL}---\nschema: ml-tracer/v1\nlibrary: test-c\nlanguage: c\nfunctions:\n  - symbol: main\n");
    for keep in [&[][..], &["--keep"]] {
        let mut arguments = vec!["--plugin", plugin, "--rounds", "40"];
        arguments.extend(keep);
        compare_targets(|| Target::start("cpp_dlopen", &arguments), 4, &map)?;
    }
    Ok(())
}

fn seccomp() -> Result<()> {
    let trace = compare("cpp_seccomp", &["--requests", "100"], 3)?;
    ensure!(trace.summary.entries() == 600, "{:?}", trace.summary);
    Ok(())
}

fn deep_stack() -> Result<()> {
    let trace = compare("cpp_deep_stack", &[], 2)?;
    ensure!(trace.summary.entries() == 40, "{:?}", trace.summary);
    Ok(())
}

fn odd_shapes() -> Result<()> {
    compare("cpp_tail_calls", &[], 2)?;
    compare("cpp_tail_calls_marked", &[], 2).map(drop)
}

fn c_and_rust() -> Result<()> {
    let map = std::fs::read_to_string(tracer_tests::workspace::tests("targets/c_library/map.yaml"))?;
    compare_targets(|| Target::start("c_library", &[]), 3, &map)?;
    for build in ["rust_smartcore", "rust_smartcore_v0"] {
        compare_targets(|| Target::start(build, &["20"]), 2, &NEST_ALL.replace("cpp", "rust"))?;
    }
    Ok(())
}

fn python_models() -> Result<()> {
    for name in ["python_xgboost", "python_lightgbm"] {
        compare_targets(|| Target::start_python(name, 30), 2, NEST_ALL).context(name)?;
    }
    Ok(())
}

fn run_passes_on() -> Result<()> {
    let pipeline = build("cpp_exceptions")?;
    let forking = build("cpp_fork")?;
    let endings = [
        (&pipeline, &["--mode", "throw"][..], 7),
        // Death by SIGABRT is told as a shell does.
        (&pipeline, &["--mode", "terminate"][..], 128 + 6),
        (&forking, &["--mode", "exec"][..], 4),
    ];
    for (program, arguments, code) in endings {
        let mut words = vec![program.as_os_str()];
        words.extend(arguments.iter().map(std::ffi::OsStr::new));
        let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
        ensure!(trace.finished.code == Some(code), "{arguments:?}: {:?}", trace.finished);
        trace.check_books()?;
    }
    Ok(())
}
