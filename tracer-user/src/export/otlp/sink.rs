//! Collects spans into batches and hands them to the worker, never waiting for the collector.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::super::attribute_limits::AttributeLimits;
use super::super::destination::OTLP;
use super::super::environment::Environment;
use super::super::error::ExportError;
use super::super::resource::Resource;
use super::super::sink::{Delivery, Sink, Summary};
use super::grpc_answer::GrpcAnswers;
use super::outcome::Outcome;
use super::settings::Settings;
use super::transport::exporter;
use super::worker::{Batch, Worker};
use crate::model::{Loss, Span};

const NAME: &str = OTLP.word;
/// Spans of a batch.
const BATCH_SPANS: usize = 512;
/// A batch that is not full is sent after this time.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Batches under way at one time; with the spans of a batch this bounds the memory to about 8 MiB.
const MAX_BATCHES: usize = 64;
/// How long the caller waits for a collector that has begun to lag, before spans are dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end waits while no span is taken.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);
/// Processes described and not announced to the worker yet.
const MAX_ANNOUNCED: usize = 4 * tracer_common::limits::MAX_PROCESSES as usize;

/// Sends spans to a collector.
pub struct Otlp {
    url: String,
    timeout: Duration,
    batches: mpsc::Sender<Batch>,
    abort: oneshot::Sender<()>,
    /// Disconnected when the worker has ended.
    ended: std::sync::mpsc::Receiver<()>,
    thread: JoinHandle<()>,
    outcome: Arc<Outcome>,
    batch: Batch,
    batch_begun: Instant,
    /// The queue was full for longer than the caller could wait, and has not emptied since.
    stalled: bool,
    accepted: u64,
    dropped: u64,
}

/// What to do about a collector that does not take spans.
const CHECK: &str = "check that it runs, and that the URL and the OTEL_EXPORTER_OTLP_ variables are right";

impl Otlp {
    /// Sends to `url`, or where the environment says. Nothing is sent yet: a collector may be started later.
    ///
    /// # Errors
    /// The URL or a variable cannot be used, or there is no thread.
    pub fn new(url: Option<&str>, environment: Environment<'_>) -> Result<Self, ExportError> {
        let limits = AttributeLimits::read(environment)?;
        let settings = Settings::read(url, environment)?;
        let no_thread = |source| ExportError::CannotStartThread { sink: NAME, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let outcome = Arc::new(Outcome::default());
        let exporter = runtime.block_on(async { exporter(&settings, &outcome) })?;
        let (batches, to_send) = mpsc::channel(MAX_BATCHES);
        let (abort, aborted) = oneshot::channel();
        let (still_there, ended) = sync_channel(0);
        let worker = Worker::new(exporter, settings.timeout, Arc::clone(&outcome), limits);
        let answers = GrpcAnswers::new(Arc::clone(&outcome));
        let thread = std::thread::Builder::new()
            .name("export-otlp".to_owned())
            .spawn(move || {
                let _answers = tracing::subscriber::set_default(answers);
                runtime.block_on(async {
                    tokio::select! {
                        () = worker.run(to_send) => {}
                        _ = aborted => {}
                    }
                });
                // Not waiting for a name that is still being looked up.
                runtime.shutdown_background();
                drop(still_there);
            })
            .map_err(no_thread)?;
        Ok(Self {
            url: settings.shown_url(),
            timeout: settings.timeout,
            batches,
            abort,
            ended,
            thread,
            outcome,
            batch: Batch::default(),
            batch_begun: Instant::now(),
            stalled: false,
            accepted: 0,
            dropped: 0,
        })
    }

    /// Passes the batch on. If the queue is full the caller waits once, for a moment; then a full batch is dropped.
    fn pass_on(&mut self) {
        if self.stalled && self.batches.capacity() > MAX_BATCHES / 2 {
            self.stalled = false;
        }
        let begin = Instant::now();
        loop {
            self.batch = match self.batches.try_send(std::mem::take(&mut self.batch)) {
                Ok(()) => return,
                Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) => batch,
            };
            if self.stalled || begin.elapsed() >= PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.stalled = true;
        if self.batch.spans.len() >= BATCH_SPANS {
            self.drop_batch();
        }
    }

    /// The descriptions are kept: later spans need them.
    fn drop_batch(&mut self) {
        self.dropped += self.batch.spans.len() as u64;
        self.batch.spans.clear();
    }

    /// Waits for the worker as long as the collector takes spans, and no longer than one timeout in all.
    fn wait_for_worker(&self) -> bool {
        let quiet_limit = self.timeout.min(PATIENCE_AT_END);
        let begin = Instant::now();
        let mut last_progress = begin;
        let mut delivered = self.outcome.delivered();
        loop {
            match self.ended.recv_timeout(Duration::from_millis(20)) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now_delivered = self.outcome.delivered();
            if now_delivered != delivered {
                delivered = now_delivered;
                last_progress = Instant::now();
            }
            if last_progress.elapsed() >= quiet_limit || begin.elapsed() >= self.timeout {
                return false;
            }
        }
    }

    /// Spans held in memory, at most.
    #[cfg(test)]
    pub(super) fn waiting_spans(&self) -> usize {
        (MAX_BATCHES - self.batches.capacity()) * BATCH_SPANS + self.batch.spans.len()
    }

    fn problem(&self, lost: u64, gave_up: bool) -> Option<String> {
        if lost == 0 {
            return None;
        }
        let url = &self.url;
        let guess =
            if gave_up { "it could not be reached or did not answer in time" } else { "it took spans too slowly" };
        let reason = self.outcome.take_problem().unwrap_or_else(|| guess.to_owned());
        Some(format!("the collector at {url} did not take {lost} of {} spans: {reason}; {CHECK}", self.accepted))
    }
}

impl Sink for Otlp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&mut self, resource: &Arc<Resource>) {
        if self.batch.resources.len() >= MAX_ANNOUNCED {
            self.batch.resources.remove(0);
        }
        self.batch.resources.push(Arc::clone(resource));
    }

    fn span(&mut self, span: &Span) {
        if self.batch.spans.is_empty() {
            self.batch_begun = Instant::now();
            self.batch.spans.reserve(BATCH_SPANS);
        }
        self.batch.spans.push(span.clone());
        self.accepted += 1;
        if self.batch.spans.len() >= BATCH_SPANS {
            self.pass_on();
        }
    }

    /// The loss itself is not repeated here: the next span of the thread carries `ml.lost_before`.
    fn loss(&mut self, _loss: &Loss) {}

    fn flush(&mut self) {
        if let Some(problem) = self.outcome.take_outage() {
            let url = &self.url;
            tracing::warn!(
                "the collector at {url} does not take spans: {problem}; {CHECK}; what it does not take is counted at the end"
            );
        }
        if !self.batch.spans.is_empty() && self.batch_begun.elapsed() >= BATCH_AGE {
            self.pass_on();
        }
    }

    fn finish(mut self: Box<Self>, _summary: &Summary) -> Delivery {
        if !self.batch.spans.is_empty() {
            self.pass_on();
            self.drop_batch();
        }
        // The worker ends when it has sent what is queued and no sender is left.
        self.batches = mpsc::channel(1).0;
        let ended = self.wait_for_worker();
        let delivered = self.outcome.delivered();
        let lost = self.accepted.saturating_sub(delivered);
        let problem = self.problem(lost, !ended);
        let _ = self.abort.send(());
        // Ends at once, unless it is busy with a batch; then the end of the process ends it.
        if self.ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
            let _ = self.thread.join();
        }
        Delivery { sink: NAME, delivered, lost, problem }
    }
}
