//! The thread that talks to the collector.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc::Receiver;

use super::super::attribute_limits::AttributeLimits;
use super::super::described::Described;
use super::super::resource::Resource;
use super::span_data::{resource_data, scope, span_data};
use super::transport::{Answer, Transport};
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

/// What became of the spans so far.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Spans that the collector has taken.
    pub delivered: AtomicU64,
    /// The newest reason why it has not taken some.
    pub problem: Mutex<Option<String>>,
}

impl Outcome {
    fn note_problem(&self, problem: String) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }
}

/// Sends batches until there are no more.
pub struct Worker {
    transport: Transport,
    timeout: Duration,
    answer: Answer,
    outcome: Arc<Outcome>,
    scope: InstrumentationScope,
    limits: AttributeLimits,
    exporters: Described<Exporter>,
}

/// The exporter library knows one resource for an exporter: each process has its own, made when it is needed.
enum Exporter {
    Described(Arc<Resource>),
    Made(Box<SpanExporter>),
}

impl Worker {
    /// A worker that has sent nothing yet.
    pub fn new(
        transport: Transport,
        timeout: Duration,
        answer: Answer,
        outcome: Arc<Outcome>,
        limits: AttributeLimits,
    ) -> Self {
        Self { transport, timeout, answer, outcome, scope: scope(), limits, exporters: Described::default() }
    }

    /// Takes batches until the sender is gone.
    pub async fn run(mut self, mut batches: Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            for resource in batch.resources {
                self.exporters.insert(resource.process, Exporter::Described(resource));
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
        if let Err(problem) = self.make_exporter(process) {
            return self.outcome.note_problem(problem);
        }
        let Some(Exporter::Made(exporter)) = self.exporters.get(process) else { return };
        let data = spans.iter().map(|span| span_data(span, &self.scope, self.limits)).collect();
        let result = tokio::time::timeout(self.timeout + GRACE, exporter.export(data)).await;
        let answer = self.answer.take();
        match result {
            Err(_) => self.outcome.note_problem("it did not answer in time".to_owned()),
            Ok(Err(OTelSdkError::InternalFailure(reason))) => {
                self.outcome.note_problem(answer.failure.unwrap_or(reason));
            }
            Ok(Err(error)) => self.outcome.note_problem(error.to_string()),
            Ok(Ok(())) => {
                if let Some(kind) = answer.not_otlp {
                    return self.outcome.note_problem(format!("{kind} came back, so no OTLP receiver is there"));
                }
                if answer.rejected > 0 {
                    let reason = answer.rejection.unwrap_or_else(|| "no reason given".to_owned());
                    self.outcome.note_problem(format!("it refused spans: {reason}"));
                }
                let delivered = (spans.len() as u64).saturating_sub(answer.rejected);
                self.outcome.delivered.fetch_add(delivered, Ordering::Release);
            }
        }
    }

    fn make_exporter(&mut self, process: ProcessId) -> Result<(), String> {
        let resource = match self.exporters.get(process) {
            Some(Exporter::Made(_)) => return Ok(()),
            Some(Exporter::Described(resource)) => Arc::clone(resource),
            None => Arc::new(Resource::unknown(process, &|_| None)),
        };
        let mut exporter = self.transport.exporter().map_err(|error| error.to_string())?;
        exporter.set_resource(&resource_data(&resource));
        self.exporters.insert(process, Exporter::Made(Box::new(exporter)));
        Ok(())
    }
}
