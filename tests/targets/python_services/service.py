"""One of three services: service.py frontend FORMATTER PUBLISHER | formatter | publisher, with the addresses of the others. Says `port N`.

`GET /hello/NAME` asks the frontend, which has OpenTelemetry's SDK in it, and which asks the formatter and then the publisher. These know nothing
of traces.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from serving import serve_asgi, serve_wsgi


def frontend(formatter, publisher):
    import requests
    from fastapi import FastAPI
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
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


{"frontend": frontend, "formatter": formatter, "publisher": publisher}[sys.argv[1]](*sys.argv[2:])
