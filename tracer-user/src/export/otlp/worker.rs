//! The thread that talks to the collector.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc::Receiver;

use super::super::resource::Resource;
use super::span_data::{resource_data, scope, span_data};
use super::transport::{Answer, Transport};
use crate::model::{ProcessId, Span};

/// Processes with an exporter of their own at one time; a tracer watches at most this many.
const MAX_EXPORTERS: usize = tracer_common::limits::MAX_PROCESSES as usize;
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
    resources: HashMap<ProcessId, Arc<Resource>>,
    exporters: HashMap<ProcessId, SpanExporter>,
}

impl Worker {
    /// A worker that has sent nothing yet.
    pub fn new(transport: Transport, timeout: Duration, answer: Answer, outcome: Arc<Outcome>) -> Self {
        Self {
            transport,
            timeout,
            answer,
            outcome,
            scope: scope(),
            resources: HashMap::new(),
            exporters: HashMap::new(),
        }
    }

    /// Takes batches until the sender is gone.
    pub async fn run(mut self, mut batches: Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            for resource in batch.resources {
                self.exporters.remove(&resource.process);
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
        if let Err(problem) = self.make_exporter(process) {
            return self.outcome.note_problem(problem);
        }
        let Some(exporter) = self.exporters.get(&process) else { return };
        let data = spans.iter().map(|span| span_data(span, &self.scope)).collect();
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
        if self.exporters.contains_key(&process) {
            return Ok(());
        }
        if self.exporters.len() >= MAX_EXPORTERS {
            self.exporters.clear();
        }
        let mut exporter = self.transport.exporter().map_err(|error| error.to_string())?;
        let unknown = || Arc::new(Resource::unknown(process, &|_| None));
        let resource = self.resources.get(&process).cloned().unwrap_or_else(unknown);
        exporter.set_resource(&resource_data(&resource));
        self.exporters.insert(process, exporter);
        Ok(())
    }
}
