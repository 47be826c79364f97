"""A server made of the standard library and OpenTelemetry's SDK, whose models are called in the SDK's spans in many ways.

Usage: server.py tasks|threads. Says `port N`, and serves until its input is closed. `tasks`: a task for each request, whose span is the current
one when the answer is written. `threads`: a thread for each connection, and the span is over by then.

`GET /KIND/N` calls the model with the number N modulo 16. The ids of the SDK are told by N: the trace is that of `traceparent`, or N + 1,
the span of the request is 16 N + 1, and others inside it 16 N + 2 and 3. `direct`: in the span of the request; `inner`: in another one inside
that; `many`: twice, in two spans in tasks of their own; `thread`: in a thread that is given a copy of the context; `executor`: in one that is
not; `remote`: in no span, but below that of the caller; `unsampled`: in a span that is not recorded; `bare`: without the SDK; `own`: in a model
that begins a span itself; `none`: not at all.
"""

import asyncio
import contextvars
import http.server
import sys
import threading

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

# What makes mappings of contexts deeper than one node.
VARIABLES = [contextvars.ContextVar(f"variable {number}") for number in range(40)]

NUMBER = threading.local()


class Numbers(IdGenerator):
    def generate_span_id(self):
        return NUMBER.span

    def generate_trace_id(self):
        return NUMBER.trace


TRACER = TracerProvider(id_generator=Numbers(), shutdown_on_exit=False).get_tracer("server")


class Model:
    def predict(self, number):
        return self.transform(number) + 1

    def transform(self, number):
        return sum(len(str(value)) for value in range(number % 50 + 50))


class Spanning(Model):
    def predict(self, number):
        with span("of the model", 16 * number + 3):
            return self.transform(number) + 1


MODELS = [type(f"Model{number:02}", (Model,), {})() for number in range(16)]
SPANNING = [type(f"Model{number:02}", (Spanning,), {})() for number in range(16)]


def predict(number):
    return MODELS[number % 16].predict(number)


def span(name, number, **arguments):
    """A span with this number. No other thread or task comes between the number and the span."""
    NUMBER.span = number
    NUMBER.trace = arguments.pop("trace", 1)
    return TRACER.start_as_current_span(name, **arguments)


def caller(trace_id, number, flags=1):
    span_context = SpanContext(trace_id, number, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(span_context), context.Context())


async def in_task(number, span_number):
    with span("task", span_number):
        await asyncio.sleep(0.001)
        predict(number)
        await asyncio.sleep(0.001)


async def call(kind, number):
    loop = asyncio.get_running_loop()
    if kind == "inner":
        with span("inner", 16 * number + 2):
            await asyncio.sleep(0)
            predict(number)
    elif kind == "many":
        await asyncio.gather(in_task(number, 16 * number + 2), in_task(number, 16 * number + 3))
    elif kind == "thread":
        await loop.run_in_executor(None, contextvars.copy_context().run, predict, number)
    elif kind == "executor":
        await loop.run_in_executor(None, predict, number)
    elif kind == "own":
        SPANNING[number % 16].predict(number)
    elif kind != "none":
        await asyncio.sleep(0)
        predict(number)


def call_here(kind, number):
    if kind == "inner":
        with span("inner", 16 * number + 2):
            predict(number)
    elif kind == "own":
        SPANNING[number % 16].predict(number)
    elif kind != "none":
        predict(number)


def asked(head):
    """What a request asks for, and the context that it brings."""
    kind, number = head.split(" ")[1].split("/")[1:3]
    number, trace_id, has_caller = int(number), int(number) + 1, False
    for line in head.split("\r\n")[1:]:
        if line.lower().startswith("traceparent:"):
            trace_id, has_caller = int(line.split("-")[1], 16), True
    return kind, number, trace_id, has_caller


def around(kind, number, trace_id, has_caller):
    """The span of the request, or what stands for it; a context manager."""
    if kind == "remote":
        return attached(caller(trace_id, number))
    if kind == "unsampled":
        return attached(caller(trace_id, number, flags=0))
    if kind == "bare":
        return attached(context.Context())
    above = caller(trace_id, number) if has_caller else context.Context()
    return span("request", 16 * number + 1, kind=SpanKind.SERVER, context=above, trace=trace_id)


class attached:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        self.token = context.attach(self.value)

    def __exit__(self, *_):
        context.detach(self.token)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Tasks(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.unread = b""

    def data_received(self, data):
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            head, self.unread = self.unread.split(b"\r\n\r\n", 1)
            asyncio.get_running_loop().create_task(self.answer(head.decode()))

    async def answer(self, head):
        request = asked(head)
        for variable in VARIABLES[: 1 + request[1] % len(VARIABLES)]:
            variable.set(head)
        with around(*request):
            await call(*request[:2])
            self.transport.write(ANSWER)


async def serve():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Tasks, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


class Threads(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        request = asked(f"GET {self.path} \r\n" + "\r\n".join(f"{name}: {value}" for name, value in self.headers.items()))
        with around(*request):
            call_here(*request[:2])
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


def main():
    if sys.argv[1] == "tasks":
        return asyncio.run(serve())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Threads)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port", server.server_address[1], flush=True)
    sys.stdin.read()


main()
