//! What the probes may take from a target.

use anyhow::{Result, ensure};
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![case("what_is_called_too_often_loses_its_probes", NEEDS, too_often)]
}

/// More than a traced process makes in the time until its calls are counted for the second time.
const REQUESTS: u64 = 300_000;

fn too_often() -> Result<()> {
    // So many calls that probes take the share on any machine, and so few that there are some left when they go.
    let requests = REQUESTS.to_string();
    let arguments = ["--requests", &requests, "--kind", "3", "--threads", "4", "--pause-us", "20"];
    let mut target = Target::start("cpp_pipeline", &arguments)?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--max-overhead", "1%"]).start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    let said = &trace.finished.errors;
    ensure!(said.contains("--max-overhead allows 1 %: StandardScaler.transform"), "{said}");
    let entries = trace.summary.entries();
    ensure!((1..REQUESTS).contains(&entries), "{entries} entries");
    ensure!(trace.summary.open() <= 4, "{} open", trace.summary.open());
    Ok(())
}
