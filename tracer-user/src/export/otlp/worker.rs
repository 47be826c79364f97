//! The thread that talks to the collector.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc::Receiver;

use super::super::attribute_limits::AttributeLimits;
use super::super::described::Described;
use super::super::resource::Resource;
use super::outcome::Outcome;
use super::span_data::{resource_data, scope, span_data};
use crate::model::{ProcessId, Span};

/// Given to an export beyond its own timeout before it is cut off.
const GRACE: Duration = Duration::from_secs(1);

/// Spans on their way, and descriptions of processes that come with them.
#[derive(Debug, Default)]
pub struct Batch {
    /// Processes described since the last batch.
    pub resources: Vec<Arc<Resource>>,
    /// The spans.
    pub spans: Vec<Span>,
}

/// Sends batches until there are no more.
pub struct Worker {
    exporter: SpanExporter,
    timeout: Duration,
    outcome: Arc<Outcome>,
    scope: InstrumentationScope,
    limits: AttributeLimits,
    resources: Described<Arc<Resource>>,
}

impl Worker {
    /// A worker that has sent nothing yet.
    pub fn new(exporter: SpanExporter, timeout: Duration, outcome: Arc<Outcome>, limits: AttributeLimits) -> Self {
        Self { exporter, timeout, outcome, scope: scope(), limits, resources: Described::default() }
    }

    /// Takes batches until the sender is gone.
    pub async fn run(mut self, mut batches: Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            for resource in batch.resources {
                self.resources.insert(resource.process, resource);
            }
            let mut by_process: Vec<(ProcessId, Vec<&Span>)> = Vec::new();
            for span in &batch.spans {
                match by_process.iter_mut().find(|(process, _)| *process == span.process) {
                    Some((_, spans)) => spans.push(span),
                    None => by_process.push((span.process, vec![span])),
                }
            }
            for (process, spans) in by_process {
                self.send(process, &spans).await;
            }
        }
    }

    async fn send(&mut self, process: ProcessId, spans: &[&Span]) {
        // The exporter knows one resource at a time: that of the spans which it is given next.
        self.exporter.set_resource(&match self.resources.get(process) {
            Some(resource) => resource_data(resource),
            None => resource_data(&Resource::unknown(process, &|_| None)),
        });
        let data = spans.iter().map(|span| span_data(span, &self.scope, self.limits)).collect();
        let result = tokio::time::timeout(self.timeout + GRACE, self.exporter.export(data)).await;
        let answer = self.outcome.take_answer();
        let problem = match result {
            Err(_) => Some("it did not answer in time".to_owned()),
            Ok(Err(OTelSdkError::InternalFailure(reason))) => Some(answer.problem.unwrap_or(reason)),
            Ok(Err(error)) => Some(error.to_string()),
            Ok(Ok(())) => {
                self.outcome.add_delivered((spans.len() as u64).saturating_sub(answer.refused));
                answer.problem
            }
        };
        problem.into_iter().for_each(|problem| self.outcome.note_problem(problem));
    }
}
