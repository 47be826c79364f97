//! What a session has to say of requests at its end.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{LossCounts, RequestTotals, counted};

/// What became of the requests, where they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestReport {
    /// Those that were seen.
    pub seen: u64,
    /// Those among them whose whole answer was not seen.
    pub unanswered: u64,
    /// Those among them that make no span because their callers do not record them.
    pub not_sampled: u64,
    /// Those among them that make no span because an SDK in the process tells of them.
    pub told_by_sdk: u64,
    /// Connections of which no more could be told, by the reason.
    pub out_of_step: BTreeMap<String, u64>,
    /// Connections that were not looked at because they speak something else, by its name.
    pub not_looked_at: BTreeMap<String, u64>,
    /// Records of what was done with connections that were lost.
    pub records_lost: u64,
    /// Connections for which there was no room.
    pub connections_lost: u64,
    /// Records of contexts that were lost: what was made for which request is not known then.
    pub context_records_lost: u64,
    /// Records of the spans of an SDK that were lost: which of them a call began in is not known then.
    pub span_records_lost: u64,
    /// Outermost calls of processes that were asked something, or that began in spans of an SDK.
    pub calls: CallReport,
}

/// What became of those calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallReport {
    /// They are inside the request that they were made for.
    pub joined: u64,
    /// They are inside a span of an SDK in the process.
    pub in_spans: u64,
    /// Those among them that were made for a request of another trace, to which they have a link.
    pub contradicted: u64,
    /// They are not recorded, as the request or span that they were made in.
    pub not_sampled: u64,
    /// They begin traces of their own, by the reason.
    pub own_root: BTreeMap<&'static str, u64>,
}

/// The reason that is none to say anything.
const NO_REQUEST: &str = "no_request";

/// How to export what others do not record.
const EXPORTED: &str = "OTEL_TRACES_SAMPLER=always_on in the environment of ml-tracer exports it";

impl RequestReport {
    /// What was told, and what the kernel counted.
    pub fn new(counts: &LossCounts, totals: RequestTotals) -> Self {
        let RequestTotals { requests, unanswered, not_sampled, told_by_sdk, out_of_step, others, calls } = totals;
        Self {
            seen: requests,
            unanswered,
            not_sampled,
            told_by_sdk,
            out_of_step: out_of_step.into_iter().map(|(reason, count)| (reason.words().to_owned(), count)).collect(),
            not_looked_at: others.into_iter().map(|(other, count)| (other.word().to_owned(), count)).collect(),
            records_lost: counts.socket_records_lost,
            connections_lost: counts.connections_lost,
            context_records_lost: counts.context_records_lost,
            span_records_lost: counts.span_records_lost,
            calls: CallReport {
                joined: calls.joined,
                in_spans: calls.in_spans,
                contradicted: calls.contradicted,
                not_sampled: calls.not_sampled,
                own_root: calls.own_root.into_iter().map(|(why, count)| (why.word(), count)).collect(),
            },
        }
    }

    /// A sentence for each thing that a person should know.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let connections = |count| counted(count, "connection", "connections");
        if self.seen > 0 {
            let unanswered = match self.unanswered {
                0 => String::new(),
                _ => format!(", {} of them without a whole answer", self.unanswered),
            };
            remarks.push(format!("{} seen{unanswered}", counted(self.seen, "request", "requests")));
        }
        if self.not_sampled > 0 {
            let requests = counted(self.not_sampled, "request is", "requests are");
            let who = "the caller (traceparent) or an OpenTelemetry SDK in the process";
            remarks.push(format!("{requests} shown here only, because {who} does not record the trace; {EXPORTED}"));
        }
        if self.told_by_sdk > 0 {
            let requests = counted(self.told_by_sdk, "request", "requests");
            remarks.push(format!("{requests} made no span here: an OpenTelemetry SDK in the process makes it"));
        }
        for (other, count) in &self.not_looked_at {
            remarks.push(format!("{} of {other}: requests on them were not looked at", connections(*count)));
        }
        for (reason, count) in &self.out_of_step {
            remarks.push(format!("{} could not be followed any further: {reason}", connections(*count)));
        }
        let not_known: u64 =
            self.calls.own_root.iter().filter(|(why, _)| **why != NO_REQUEST).map(|(_, count)| count).sum();
        if self.calls.joined > 0 || not_known > 0 {
            let joined = counted(
                self.calls.joined,
                "outermost call is inside its request",
                "outermost calls are inside their requests",
            );
            let others = match not_known {
                0 => String::new(),
                _ => format!("; of {not_known} it is not known for which request they were made (ml.parent_reason)"),
            };
            remarks.push(format!("{joined}{others}"));
        }
        if self.calls.not_sampled > 0 {
            let (one, many) = ("outermost call is", "outermost calls are");
            let calls = counted(self.calls.not_sampled, one, many);
            remarks.push(format!(
                "{calls} in requests or spans of an OpenTelemetry SDK that are not recorded, and shown here only; {EXPORTED}"
            ));
        }
        if self.calls.in_spans > 0 {
            let (one, many) = (
                "outermost call is inside a span of the OpenTelemetry SDK in its process",
                "outermost calls are inside spans of the OpenTelemetry SDKs in their processes",
            );
            let contradicted = match self.calls.contradicted {
                0 => String::new(),
                count => format!("; {count} of them were made for a request of another trace (a link leads there)"),
            };
            remarks.push(format!("{}{contradicted}", counted(self.calls.in_spans, one, many)));
        }
        if self.span_records_lost > 0 {
            let records = counted(self.span_records_lost, "record", "records");
            remarks.push(format!("lost {records} of the SDK's spans that calls began in: the ring buffer was full"));
        }
        if self.context_records_lost > 0 {
            let records = counted(self.context_records_lost, "record", "records");
            remarks.push(format!(
                "lost {records} of contexts, which tell for whom a call is made: the ring buffer was full"
            ));
        }
        if self.records_lost > 0 {
            let records = counted(self.records_lost, "record", "records");
            remarks.push(format!("lost {records} of what was read and written: the ring buffer was full"));
        }
        if self.connections_lost > 0 {
            remarks.push(format!("{} not looked at: too many are open at once", connections(self.connections_lost)));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JoinedCalls, NoParent, OtherProtocol, OutOfStep};

    #[test]
    fn what_was_not_looked_at_is_told() {
        let totals = RequestTotals {
            requests: 3,
            unanswered: 1,
            not_sampled: 1,
            told_by_sdk: 1,
            out_of_step: [(OutOfStep::LostRecord, 1)].into(),
            others: [(OtherProtocol::Http2, 240)].into(),
            calls: JoinedCalls {
                joined: 5,
                in_spans: 4,
                contradicted: 1,
                not_sampled: 1,
                own_root: [(NoParent::NoRequest, 9), (NoParent::NotShown, 2)].into(),
            },
        };
        let counts = LossCounts { socket_records_lost: 7, ..LossCounts::default() };
        let expected = [
            "3 requests seen, 1 of them without a whole answer",
            "1 request is shown here only, because the caller (traceparent) or an OpenTelemetry SDK in the process does not record the \
             trace; OTEL_TRACES_SAMPLER=always_on in the environment of ml-tracer exports it",
            "1 request made no span here: an OpenTelemetry SDK in the process makes it",
            "240 connections of HTTP/2: requests on them were not looked at",
            "1 connection could not be followed any further: a record was lost",
            "5 outermost calls are inside their requests; of 2 it is not known for which request they were made (ml.parent_reason)",
            "1 outermost call is in requests or spans of an OpenTelemetry SDK that are not recorded, and shown here only; \
             OTEL_TRACES_SAMPLER=always_on in the environment of ml-tracer exports it",
            "4 outermost calls are inside spans of the OpenTelemetry SDKs in their processes; 1 of them were made for a request of another trace (a link leads there)",
            "lost 7 records of what was read and written: the ring buffer was full",
        ];
        assert_eq!(RequestReport::new(&counts, totals).remarks(), expected);
        assert!(RequestReport::default().remarks().is_empty());
    }
}
