//! Watchpoints on processes with very many threads, and with threads that come and go all the time.

use anyhow::{Result, ensure};
use tracer_tests::python::SYSTEM;
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case, is_full};
use tracer_tests::tracer::Tracer;
use tracer_tests::workspace;

const MAP: &str = "targets/python_plain/map.yaml";

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel, Need::Python(SYSTEM)];
    vec![
        case("more_threads_than_descriptors", NEEDS, many),
        case("threads_that_come_and_go_take_no_second_register", NEEDS, churn),
    ]
}

fn many() -> Result<()> {
    let run = PythonRun::of(SYSTEM, "python_traps", &["idle", "300"]);
    let mut target = run.start()?;
    let attach = |limit: &str| {
        Ok::<_, anyhow::Error>(Tracer::attach(target.pid())?.map_file(&workspace::tests(MAP))?.after(limit))
    };
    let (raised, refused) = (attach("ulimit -S -n 200")?, attach("ulimit -n 300")?);
    let attached = raised.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    trace.check_whole()?;
    ensure!(trace.summary.spans() == 20, "{}", trace.summary.0);

    let attached = refused.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    trace.check_books()?;
    let errors = &trace.finished.errors;
    ensure!(errors.contains("limit of 300 open files") && errors.contains("ulimit -n 1"), "{errors}");
    target.finish().map(drop)
}

fn churn() -> Result<()> {
    let run = PythonRun::of(SYSTEM, "python_traps", &["churn", "10"]).map(MAP);
    let mut target = run.start()?;
    for _ in 0..if is_full() { 100 } else { 5 } {
        let attached = run.attach(&target)?;
        target.batch()?;
        let trace = attached.stop()?;
        trace.check_whole()?;
        ensure!(trace.summary.spans() == 40, "{}\n{}", trace.finished.errors, trace.summary.0);
        ensure!(!trace.finished.errors.contains("debug registers"), "{}", trace.finished.errors);
    }
    target.finish().map(drop)
}
