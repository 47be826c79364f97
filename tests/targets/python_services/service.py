"""One of four services: service.py frontend FORMATTER PUBLISHER | formatter | publisher | predictor, with the addresses of the others. Says
`port N`.

`GET /hello/NAME` asks the frontend, which has OpenTelemetry's SDK in it, and which asks the formatter and then the publisher. These know nothing
of traces. `GET /task/N`, `/thread/N` and `/manual/N` ask the predictor, which has the SDK in it and a pipeline, for a prediction in a task, in a
thread of a pool, and there in a span of its own; `POST /body/N` reads a body first.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from serving import serve_asgi, serve_wsgi


def exporting():
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return trace.get_tracer("service")


def frontend(formatter, publisher):
    import requests
    from fastapi import FastAPI
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    exporting()
    app = FastAPI()

    @app.get("/hello/{name}")
    def hello(name: str):
        text = requests.get(f"{formatter}/format/{name}", timeout=60).text
        return requests.get(f"{publisher}/publish/{text}", timeout=60).text

    FastAPIInstrumentor.instrument_app(app)
    RequestsInstrumentor().instrument()
    serve_asgi(app)


def formatter():
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/format/{name}", response_class=PlainTextResponse)
    async def format(name: str):
        return f"hello-{name}"

    serve_asgi(app)


def publisher():
    from flask import Flask

    app = Flask("publisher")

    @app.get("/publish/<text>")
    def publish(text):
        return text

    serve_wsgi(app)


def predictor():
    import numpy
    from fastapi import FastAPI, Request
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    tracer = exporting()
    rows = numpy.arange(400).reshape(100, 4) % 37
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows[:, 0] > 18)
    app = FastAPI()

    @app.get("/task/{number}")
    async def task(number: int):
        return int(model.predict(rows[number % 100 :][:1])[0])

    @app.get("/thread/{number}")
    def thread(number: int):
        return int(model.predict(rows[number % 100 :][:1])[0])

    @app.get("/manual/{number}")
    def manual(number: int):
        with tracer.start_as_current_span("manual"):
            return int(model.predict(rows[number % 100 :][:1])[0])

    @app.post("/body/{number}")
    async def body(number: int, request: Request):
        await request.body()
        return int(model.predict(rows[number % 100 :][:1])[0])

    FastAPIInstrumentor.instrument_app(app)
    serve_asgi(app)


{"frontend": frontend, "formatter": formatter, "publisher": publisher, "predictor": predictor}[sys.argv[1]](*sys.argv[2:])
