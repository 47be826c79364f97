//! The nouns that travel between the rooms: plain data, no input or output, no unsafe code.

mod call;
mod capability;
mod code_calls;
mod current_span;
mod function;
mod interpreter;
mod language;
mod look;
mod method_row;
mod plan;
mod printable;
mod python;
mod request;
mod route;
mod sentence;
mod share;
mod span;
mod symbol_map;
mod target;
mod trace_ids;
mod units;
mod unwatched;

pub use call::{
    Call, CallEnding, Event, ForeignCall, Gap, Join, LossCounts, LossOfReason, OpenCall, ProcessChange, ProcessEvent,
    RawRecord, ThreadEvent,
};
pub use capability::KernelFeatures;
pub use code_calls::CodeCalls;
pub use current_span::{CurrentSpan, CurrentSpanEvent, SpanLink};
pub use function::{
    EntrySite, FunctionName, LibraryOwner, ObjectLocation, ResolvedFunction, ReturnMethod, ReturnSite, SkipReason,
    Skipped, UnwindProof,
};
pub use interpreter::{
    ContextSite, ContextSites, DEEP_FRAMES, FramePlace, InterpreterSite, InterpreterSites, InterpreterStyle,
    NoInterpreterSites, ProbesPassed, SPARSE_KINDS, SparseKinds, Witness, WitnessDensity, WitnessSite, WitnessWindow,
    WitnessedCalls,
};
pub use language::{Language, NamedBy};
pub use look::Look;
pub use method_row::MethodRow;
pub use plan::{FunctionDescription, ModuleFile, PlannedFunction, ProbePlan, ProbeRequest};
pub use printable::printable;
pub use python::{
    AttributeForm, CHAIN_KERNEL, ClassesInSight, CodeUser, ContainerMember, CurrentSpanLayout, DEBUG_REGISTERS,
    EntryMark, FirstArgument, FrameStyle, MAX_LOOPS, MODEL_METHODS, NotLookedAt, NotWatched, PythonClass,
    PythonClassRule, PythonCode, PythonCodeRule, PythonFunction, PythonFunctionRule, PythonLayout, PythonLeftOut,
    PythonLoops, PythonMode, PythonNames, PythonPlan, PythonRuntime, PythonSkipReason, PythonSkipped, PythonSurvey,
    PythonTables, Receiver, RuntimeCoverage, UnnamedClass, WatchedCode,
};
pub use request::{
    AcceptedConnection, CallParent, CallersTrace, ConnectionId, ContextChange, ContextEvent, HostAndPort, JoinedCalls,
    NoParent, OtherProtocol, OutOfStep, PythonContext, Request, RequestEnding, RequestFacts, RequestStart,
    RequestTotals, ServerSockets, SocketAction, SocketEvent,
};
pub use route::{PartedRoute, Route, RoutePart, RoutePaths, RouteTable, RouteTaken};
pub use sentence::{counted, first_names, process_numbers};
pub use share::Share;
pub use span::{
    AttributeValue, CallError, CallFacts, Ending, Loss, Parent, ReturnedError, Span, StreamTotals, Subject,
};
pub use symbol_map::{
    ArgumentRule, ArgumentType, Children, Comparison, Container, ErrorRule, FEW, FunctionRule, Origin, Recurse,
    SymbolMap,
};
pub use target::{FileNumber, FileVersion, Mapping, Module, ProgramImage, Service, Target, TargetChange};
pub use trace_ids::{SpanId, TraceId};
pub use units::{
    ClockAnchor, FileOffset, FunctionId, MonotonicNs, ProcessId, RemoteAddress, ThreadId, VirtualAddress, WallClockNs,
};
pub use unwatched::{UNKNOWN_STEPS, UnwatchedMethods, UnwatchedSteps};
