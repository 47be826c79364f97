//! What a session has to say at its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::processes::ProcessReport;
use super::python_mode::PythonModeReport;
use super::request_report::RequestReport;
use crate::export::Delivery;
use crate::model::{LossCounts, MethodRow, RuntimeCoverage, StreamTotals, counted};

/// What became of the calls of a finished session. `entries = spans + folded + lost + open` unless something is wrong.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Calls seen to begin.
    pub entries: u64,
    /// Spans of finished calls.
    pub spans: u64,
    /// Calls folded into their caller.
    pub folded: u64,
    /// Calls whose span is lost.
    pub lost: u64,
    /// Calls still open at the end.
    pub open: u64,
    /// From the start of the tracer until all probes were live, milliseconds.
    pub attach_ms: u64,
    /// Functions probed.
    pub functions: usize,
    /// Candidates not probed.
    pub skipped: usize,
    /// What the finished calls of each method have come to, those with the most time of their own first.
    pub methods: Vec<MethodRow>,
    /// Lost calls by reason.
    pub lost_by_reason: Vec<LostBecause>,
    /// Returns for which no call was open: the call began before the probes were live, or the thread switches stacks.
    pub returns_without_entry: u64,
    /// Hits of watchpoints whose cause the host of this virtual machine lost, and that were recognised all the same.
    pub hits_without_cause: u64,
    /// Signals (SIGTRAP) from such hits that were kept from the traced processes, which they would have ended.
    pub kept_signals: u64,
    /// Placeholders made for lost parents.
    #[serde(rename = "stand_ins")]
    pub placeholders: u64,
    /// Whether `entries = spans + folded + lost + open` holds.
    pub identity_holds: bool,
    /// How Python calls were seen; `null` in the summary of a replay.
    pub python_mode: Option<PythonModeReport>,
    /// What was traced of each runtime, and what was not.
    #[serde(rename = "python")]
    pub coverage: Vec<RuntimeCoverage>,
    /// The traced processes: those that were named, and followed ones with something to trace.
    pub processes: Vec<ProcessReport>,
    /// Processes that were forked by traced ones and are not traced, for want of room or for another reason.
    pub not_followed: u64,
    /// How each destination fared.
    pub exports: Vec<ExportReport>,
    /// What became of the requests, where they were looked at.
    pub requests: RequestReport,
    /// What the engines have to say of that, a sentence each, and of what had no room.
    #[serde(skip)]
    pub told_of_runtimes: Vec<String>,
    /// See [`Self::told_of_runtimes`].
    #[serde(skip)]
    pub left_out: Option<String>,
    /// Spans of methods in runtimes, by process and name.
    #[serde(skip)]
    pub runtime_spans: BTreeMap<(u32, Arc<str>), u64>,
}

/// Lost calls of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostBecause {
    /// The reason in a few words.
    pub reason: String,
    /// Lost calls.
    pub calls: u64,
}

/// How one destination fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Kind of the destination.
    pub sink: String,
    /// Spans that reached it.
    pub delivered: u64,
    /// Spans that did not.
    pub lost: u64,
    /// What went wrong and what to do.
    pub problem: Option<String>,
}

impl Report {
    /// Compares what the kernel counted with what the assembler saw. A record that was submitted but could
    /// not be turned into a span is lost as well.
    #[must_use]
    pub fn new(counts: &LossCounts, seen: StreamTotals, deliveries: Vec<Delivery>) -> Self {
        let mut lost_by_reason: Vec<LostBecause> = counts
            .lost
            .iter()
            .map(|loss| LostBecause { reason: loss.sentence().to_owned(), calls: loss.calls })
            .collect();
        let vanished = counts.spans.saturating_sub(seen.spans);
        if vanished > 0 {
            let reason = "the record was submitted but could not be decoded".to_owned();
            lost_by_reason.push(LostBecause { reason, calls: vanished });
        }
        let lost = lost_by_reason.iter().map(|loss| loss.calls).sum();
        Self {
            entries: counts.entries,
            spans: seen.spans,
            folded: counts.folded,
            lost,
            open: counts.open,
            returns_without_entry: counts.returns_without_entry,
            hits_without_cause: counts.hits_without_cause,
            placeholders: seen.placeholders,
            identity_holds: counts.entries == seen.spans + counts.folded + lost + counts.open,
            lost_by_reason,
            requests: RequestReport::new(counts, seen.requests),
            runtime_spans: seen.python,
            methods: seen.methods,
            exports: deliveries
                .into_iter()
                .map(|delivery| ExportReport {
                    sink: delivery.sink.to_owned(),
                    delivered: delivery.delivered,
                    lost: delivery.lost,
                    problem: delivery.problem,
                })
                .collect(),
            ..Self::default()
        }
    }

    /// The report of a session that has seen nothing.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self { identity_holds: true, ..Self::default() }
    }

    /// Whether there never was anything that a symbol map asks for, traced or not.
    #[must_use]
    pub fn has_found_nothing(&self) -> bool {
        let is_empty = |coverage: &RuntimeCoverage| coverage.watched.is_empty() && coverage.not_watched.is_empty();
        let is_named = !self.processes.is_empty();
        is_named
            && self.requests.seen == 0
            && self.entries == 0
            && self.functions == 0
            && self.skipped == 0
            && self.coverage.iter().all(is_empty)
    }

    /// Where every call that was seen to begin has gone.
    fn identity(&self) -> String {
        let sign = if self.identity_holds { "=" } else { "is NOT" };
        format!(
            "entries {} {sign} spans {} + folded {} + lost {} + open {}",
            self.entries, self.spans, self.folded, self.lost, self.open
        )
    }

    /// The line that ends every session.
    #[must_use]
    pub fn line(&self) -> String {
        format!("spans={} folded={} lost={} open={}", self.spans, self.folded, self.lost, self.open)
    }

    /// Methods in the runtime of a process that have spans, those with the most first.
    #[must_use]
    pub fn spans_of(&self, process: u32) -> Vec<(&str, u64)> {
        let of_process = self.runtime_spans.iter().filter(|((pid, _), _)| *pid == process);
        let mut methods: Vec<(&str, u64)> = of_process.map(|((_, name), spans)| (&**name, *spans)).collect();
        methods.sort_by_key(|(name, spans)| (std::cmp::Reverse(*spans), *name));
        methods
    }

    /// What else a person should know, a sentence each.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> =
            self.lost_by_reason.iter().map(|lost| format!("lost {}: {}", calls(lost.calls), lost.reason)).collect();
        if !self.identity_holds {
            let identity = self.identity();
            remarks.push(format!(
                "the counts do not add up ({identity}); please report this with a recording (--record-tape FILE)"
            ));
        }
        if self.kept_signals > 0 {
            remarks.push(format!(
                "the host of this virtual machine lost the cause of {}: the signals that this makes were kept from the \
                 processes, and the calls of {} were recognised",
                counted(self.kept_signals, "watchpoint hit", "watchpoint hits"),
                self.hits_without_cause
            ));
        }
        remarks.extend(self.requests.remarks());
        remarks.extend_from_slice(&self.told_of_runtimes);
        let problems = self.processes.iter().filter_map(|process| Some((process, process.problem.as_ref()?)));
        for (process, problem) in problems.filter(|(process, _)| process.forked_by.is_none()) {
            remarks.push(format!("process {} was not traced to the end: {problem}", process.pid));
        }
        remarks.extend(self.left_out.clone());
        if self.not_followed > 0 {
            let processes = counted(self.not_followed, "forked process", "forked processes");
            remarks.push(format!(
                "not followed: {processes}; a process that ends within some milliseconds is over before it can be looked at"
            ));
        }
        for export in &self.exports {
            if let Some(problem) = &export.problem {
                remarks.push(format!(
                    "{}: {} delivered, {} lost: {problem}",
                    export.sink,
                    counted(export.delivered, "span", "spans"),
                    export.lost
                ));
            }
        }
        remarks
    }
}

fn calls(number: u64) -> String {
    counted(number, "call", "calls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_became_no_span_is_lost() {
        let counts = LossCounts { entries: 10, spans: 7, folded: 2, open: 1, ..LossCounts::default() };
        let seen = StreamTotals { spans: 6, undecodable: 1, ..StreamTotals::default() };
        let report = Report::new(&counts, seen, Vec::new());
        assert_eq!((report.spans, report.lost), (6, 1));
        assert!(report.identity_holds);
        assert_eq!(report.line(), "spans=6 folded=2 lost=1 open=1");
        assert_eq!(report.identity(), "entries 10 = spans 6 + folded 2 + lost 1 + open 1");
    }

    #[test]
    fn what_was_covered_is_in_the_summary_and_told() {
        let runtime_spans =
            [((4242, "Rare.fit".into()), 1), ((4242, "PCA.fit".into()), 3), ((1, "Other.fit".into()), 9)];
        let told_of_runtimes = vec!["CPython 3.11.7 of process 4242: covered PCA.fit".to_owned()];
        let report = Report { told_of_runtimes, runtime_spans: runtime_spans.into(), ..Report::of_nothing() };
        assert_eq!(report.spans_of(4242), [("PCA.fit", 3), ("Rare.fit", 1)]);
        assert_eq!(report.remarks(), ["CPython 3.11.7 of process 4242: covered PCA.fit"]);
        let summary = serde_json::to_value(&report).expect("JSON");
        assert_eq!(summary["python"].as_array().map(Vec::len), Some(0));
    }
}
