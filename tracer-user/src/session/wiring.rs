//! The whole pipeline in one place: ring -> decode -> assemble -> sinks. The only file that sees both ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::settings::TotalsFeed;
use crate::assemble::{Assembler, Joining, Output};
use crate::decode::decode;
use crate::engine::{CallParents, OutermostCall, Propagators, RequestOutcome, ServerRequests};
use crate::export::{Delivery, Destination, ExportError, MethodTotals, Resource, Sink, Summary, open};
use crate::model::{
    Call, CallParent, ClockAnchor, CurrentSpan, CurrentSpanEvent, Event, FunctionDescription, Gap, LossCounts,
    NoParent, Parent, ProcessChange, ProcessEvent, PythonNames, RawRecord, RemoteAddress, SocketEvent, StreamTotals,
    Subject, Target, ThreadId, UnwatchedMethods,
};
use crate::ring::TapeHeader;

/// Gives the name of a Python class of a process that no [`PythonNames`] did tell, by the process's number.
pub type PythonClassNames = Box<dyn FnMut(u32, RemoteAddress) -> Option<Arc<str>> + Send>;

/// Where spans go.
struct Outlet {
    sinks: Vec<Box<dyn Sink>>,
    methods: MethodTotals,
}

/// Everything after the ring buffer.
pub struct Pipeline {
    requests: ServerRequests,
    parents: CallParents,
    assembler: Assembler,
    joining: Joining,
    /// The spans of an SDK in which threads begin the answers that come next.
    answering: HashMap<ThreadId, CurrentSpan>,
    outlet: Outlet,
    /// Who is told what they have come to, and when that was done last.
    feed: Option<(TotalsFeed, Instant)>,
}

impl Pipeline {
    /// Opens every destination for the processes of a tape or of a live session, which has the header of a tape too.
    ///
    /// # Errors
    /// A destination cannot be opened.
    pub fn open(
        header: &TapeHeader,
        classes: PythonClassNames,
        destinations: &[Destination],
    ) -> Result<Self, ExportError> {
        let environment = |name: &str| std::env::var(name).ok();
        let follows_callers = callers_are_followed(&environment);
        let assembler = Assembler::new(header.seed, header.anchor, classes).following_callers(follows_callers);
        let sinks = destinations.iter().map(|destination| open(destination, &environment)).collect::<Result<_, _>>()?;
        let mut pipeline = Self {
            requests: ServerRequests::reading(propagators(&environment)),
            parents: CallParents::default(),
            assembler,
            joining: Joining::new(header.seed, follows_callers),
            answering: HashMap::new(),
            outlet: Outlet { sinks, methods: MethodTotals::default() },
            feed: None,
        };
        header.targets.iter().for_each(|target| pipeline.add_process(target));
        Ok(pipeline)
    }

    /// The same with these sinks as well, for the processes of this header.
    #[must_use]
    pub fn with(mut self, sinks: Vec<Box<dyn Sink>>, header: &TapeHeader) -> Self {
        for mut sink in sinks {
            header.targets.iter().for_each(|target| sink.process(&resource_of(target)));
            self.outlet.sinks.push(sink);
        }
        self
    }

    /// The same, which tells what the methods have come to while records arrive.
    #[must_use]
    pub fn feeding(self, totals: Option<TotalsFeed>) -> Self {
        Self { feed: totals.map(|feed| (feed, Instant::now())), ..self }
    }

    /// Describes a process whose calls may now arrive, or one that runs another program now.
    pub fn add_process(&mut self, target: &Target) {
        self.assembler.add_process(target.process);
        let resource = resource_of(target);
        for sink in &mut self.outlet.sinks {
            sink.process(&resource);
        }
    }

    /// Makes functions known whose calls may now arrive.
    pub fn add_functions(&mut self, functions: Vec<FunctionDescription>) {
        for function in functions {
            self.assembler.add_function(Arc::new(function));
        }
    }

    /// Makes the name of a thread known that no record tells: tapes of version 1 have such names.
    pub fn add_thread_name(&mut self, thread: ThreadId, name: Arc<str>) {
        self.assembler.add_thread_name(thread, name);
    }

    /// Makes Python classes and steps known that records may now name.
    pub fn add_python_names(&mut self, names: PythonNames) {
        self.assembler.add_python_names(names);
    }

    /// Not every call is seen to begin from now on, or is again.
    pub fn add_gap(&mut self, gap: Gap) {
        self.assembler.add_gap(gap);
    }

    /// Methods of steps that are not watched from an instant on.
    pub fn add_unwatched(&mut self, unwatched: UnwatchedMethods) {
        self.assembler.add_unwatched(unwatched);
    }

    /// The two clocks have moved apart: times are told by this anchor from now on.
    pub fn add_anchor(&mut self, anchor: ClockAnchor) {
        self.assembler.add_anchor(anchor);
    }

    /// One record on its way from the ring to the sinks. Gives what has happened to a process, if the record is about that.
    pub fn record(&mut self, record: &RawRecord<'_>) -> Option<ProcessEvent> {
        match decode(record) {
            Ok(Event::Socket(event)) => self.socket(event),
            Ok(Event::Context(event)) => self.parents.context(&event),
            Ok(Event::CurrentSpan(event)) => self.current_span(&event),
            Ok(Event::Call(call)) if call.has_lost_span || self.parents.knows(call.process) => self.call(call),
            Ok(event) => {
                let Self { assembler, joining, outlet, .. } = self;
                assembler.event(&event, &mut |output| late(output, joining, outlet));
                let Event::Process(event) = event else { return None };
                if let ProcessChange::Executed | ProcessChange::Ended = event.change {
                    self.process_ended(&event);
                }
                return Some(event);
            }
            Err(error) => {
                tracing::warn!(%error, "a record could not be decoded");
                self.assembler.undecodable();
            }
        }
        None
    }

    fn current_span(&mut self, event: &CurrentSpanEvent) {
        match event.call {
            Some(call) => self.joining.begins_in(event, call),
            None => {
                self.answering.insert(event.thread, event.span);
            }
        }
    }

    fn socket(&mut self, event: SocketEvent) {
        let Self { requests, parents, assembler, joining, answering, outlet, .. } = self;
        let (by, time, reader) = ((event.thread, event.context), event.time, event.waits.then_some(event.thread));
        let in_span = answering.remove(&event.thread);
        requests.event(event, &mut |outcome| match outcome {
            RequestOutcome::Begins(start) => parents.begins(start, reader),
            RequestOutcome::Answers(connection, number) => {
                in_span.into_iter().for_each(|span| joining.answered_in((connection, number), span));
                parents.answers((connection, number), by, time);
            }
            outcome => told(outcome, parents, assembler, (joining, outlet)),
        });
        self.join();
    }

    /// A call of a process that is asked something: it may have been made for a request.
    fn call(&mut self, call: Call) {
        let Self { parents, assembler, joining, outlet, .. } = self;
        let mut outermost = None;
        let (process, thread, context) = (call.process, call.thread, call.context);
        let (start, now, has_lost_span) = (call.start, call.end, call.has_lost_span);
        assembler.event(&Event::Call(call), &mut |output| match output {
            Output::Span(span) => {
                if span.parent == Parent::Root && matches!(span.subject, Subject::Call(_)) {
                    outermost = Some(span.trace_id);
                }
                joining.span(span, &mut |span| outlet.deliver(&Output::Span(span)));
            }
            Output::Loss(_) => outlet.deliver(&output),
        });
        match outermost {
            Some(trace) if has_lost_span => {
                let nobody = CallParent::None(NoParent::Lost);
                joining.settle(trace, &nobody, &mut |span| outlet.deliver(&Output::Span(span)));
            }
            Some(trace) => parents.ask(trace, OutermostCall { process, thread, context, start }, now),
            None => {}
        }
        self.join();
    }

    fn process_ended(&mut self, event: &ProcessEvent) {
        let Self { requests, parents, assembler, joining, outlet, .. } = self;
        let out = &mut |outcome| told(outcome, parents, assembler, (joining, outlet));
        requests.process_ended(event.process, event.time, out);
        parents.process_ended(event.process);
        self.join();
    }

    /// Calls whose parents have become known take their places.
    fn join(&mut self) {
        let Self { parents, joining, outlet, .. } = self;
        join(parents, joining, outlet);
    }

    /// A moment without records: sinks pass on what has waited for company.
    pub fn flush(&mut self) {
        for sink in &mut self.outlet.sinks {
            sink.flush();
        }
        if let Some((feed, told)) = &mut self.feed
            && told.elapsed() >= feed.every
        {
            *told = Instant::now();
            // Nobody listens any more when the program is ending.
            let _ = feed.to.send(self.outlet.methods.rows());
        }
    }

    /// Whether no span can reach any destination any more, because nobody reads them.
    pub fn nobody_reads(&self) -> bool {
        !self.outlet.sinks.is_empty() && self.outlet.sinks.iter().all(|sink| sink.is_gone())
    }

    /// Every sink delivers what is left. Sinks finish side by side, so that a dead collector does not hold up the others.
    pub fn finish(mut self, counts: Option<LossCounts>) -> (StreamTotals, Vec<Delivery>) {
        let Self { requests, parents, assembler, joining, outlet, .. } = &mut self;
        requests.finish(&mut |outcome| told(outcome, parents, assembler, (joining, outlet)));
        parents.finish();
        self.join();
        let Self { assembler, mut joining, mut outlet, .. } = self;
        let mut totals = assembler.finish(&mut |output| late(output, &mut joining, &mut outlet));
        totals.requests.calls = joining.finish(&mut |span| outlet.deliver(&Output::Span(span)));
        let Outlet { sinks, methods } = outlet;
        totals.methods = methods.rows();
        let summary = Summary { totals, counts };
        let summary = &summary;
        let deliveries = std::thread::scope(|scope| {
            let finishing: Vec<_> = sinks.into_iter().map(|sink| scope.spawn(move || sink.finish(summary))).collect();
            finishing.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        (summary.totals.clone(), deliveries)
    }
}

/// Whether what callers do not record is not told of either, as `OTEL_TRACES_SAMPLER` says; without a word it is so.
fn callers_are_followed(environment: &dyn Fn(&str) -> Option<String>) -> bool {
    environment("OTEL_TRACES_SAMPLER")
        .is_none_or(|sampler| sampler.trim().is_empty() || sampler.starts_with("parentbased_"))
}

/// What callers' traces are read from, as `OTEL_PROPAGATORS` says.
fn propagators(environment: &dyn Fn(&str) -> Option<String>) -> Propagators {
    let (propagators, others) = Propagators::named(environment("OTEL_PROPAGATORS").as_deref());
    if !others.is_empty() {
        tracing::warn!(
            "OTEL_PROPAGATORS names {}: requests are read for tracecontext, b3, b3multi and jaeger only",
            others.join(", ")
        );
    }
    propagators
}

/// What has come out of a connection, besides that a request begins or its answer does.
fn told(
    outcome: RequestOutcome,
    parents: &mut CallParents,
    assembler: &mut Assembler,
    (joining, outlet): (&mut Joining, &mut Outlet),
) {
    match outcome {
        RequestOutcome::Begins(_) | RequestOutcome::Answers(..) => {}
        RequestOutcome::Request(request) => {
            parents.ends(&request);
            // What was made for it may show that an SDK tells of it.
            join(parents, joining, outlet);
            let told_in = joining.told_in(&request);
            assembler.request(request, told_in, &mut |output| outlet.deliver(&output));
        }
        RequestOutcome::OutOfStep(reason) => assembler.out_of_step(reason),
        RequestOutcome::Other(protocol) => assembler.other_protocol(protocol),
    }
}

/// Calls whose parents have become known take their places.
fn join(parents: &mut CallParents, joining: &mut Joining, outlet: &mut Outlet) {
    for (trace, parent) in parents.take_settled() {
        joining.settle(trace, &parent, &mut |span| outlet.deliver(&Output::Span(span)));
    }
}

/// A span of a process that is asked nothing, or what stands for a lost call: it may belong to a tree whose place is another one.
fn late(output: Output, joining: &mut Joining, outlet: &mut Outlet) {
    match output {
        Output::Span(span) => joining.span_alone(span, &mut |span| outlet.deliver(&Output::Span(span))),
        Output::Loss(_) => outlet.deliver(&output),
    }
}

fn resource_of(target: &Target) -> Arc<Resource> {
    Arc::new(Resource::new(target, &|name: &str| std::env::var(name).ok()))
}

impl Outlet {
    fn deliver(&mut self, output: &Output) {
        if let Output::Span(span) = output {
            self.methods.span(span);
        }
        for sink in &mut self.sinks {
            match output {
                Output::Span(span) if span.is_recorded || sink.is_for_people() => sink.span(span),
                Output::Span(_) => {}
                Output::Loss(loss) => sink.loss(loss),
            }
        }
    }
}
