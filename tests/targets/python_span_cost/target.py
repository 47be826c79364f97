"""Measures what a call costs, plain or with a span that OpenTelemetry's SDK makes in the process.

Usage: target.py. Says `ready ADDRESS`, where the code of Meter.predict is. Reads lines `WORK COUNT` and answers each with
`done WORK COUNT NANOSECONDS`, the time of them all. WORK:
  calls         Meter.predict, which does next to nothing
  calls-sdk     the same in a span of the SDK
  pipeline      predictions of a pipeline of three steps
  pipeline-sdk  the same with a span for it and one for each step
  untraced      functions and methods that no map is about
  switches      changes between two threads, back and forth
  busy          COUNT milliseconds of `calls` and `pipeline` by turns

The SDK's spans go to a batch processor whose exporter throws them away: what is measured is the least that they can cost.
"""

import sys
import threading
import time

import numpy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans):
        return SpanExportResult.SUCCESS


PROVIDER = TracerProvider()
# Room for a whole round: a full queue would make spans cheaper than they are.
PROVIDER.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=1 << 20, max_export_batch_size=1 << 12))
TRACER = PROVIDER.get_tracer("python_span_cost")


class Meter(BaseEstimator):
    """What is called."""

    def predict(self, X):
        return X


class Bystander:
    """What is called and not traced."""

    def add(self, number):
        return number + 1


def with_span(name, function):
    def wrapper(*arguments):
        with TRACER.start_as_current_span(name):
            return function(*arguments)

    return wrapper


def pipeline(instrumented):
    random = numpy.random.default_rng(61)
    features = random.normal(size=(200, 4))
    labels = (features[:, 0] > 0).astype(int)
    steps = [("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())]
    model = Pipeline(steps).fit(features, labels)
    if instrumented:
        # As the instrumentation for scikit-learn did: on the objects.
        for estimator, method in [(steps[0][1], "transform"), (steps[1][1], "transform"), (steps[2][1], "predict")]:
            name = f"{type(estimator).__name__}.{method}"
            setattr(estimator, method, with_span(name, getattr(estimator, method)))
        model.predict = with_span("Pipeline.predict", model.predict)
    return model, features[:1]


METER = Meter()
BYSTANDER = Bystander()
MODEL, ROW = pipeline(False)
MODEL_SDK, _ = pipeline(True)


def calls(count, function=METER.predict):
    for _ in range(count):
        function(ROW)


def calls_sdk(count):
    calls(count, with_span("Meter.predict", METER.predict))


def predictions(count, model=MODEL):
    for _ in range(count):
        model.predict(ROW)


def predictions_sdk(count):
    predictions(count, MODEL_SDK)


def untraced(count):
    number, words = 0, {}
    for index in range(count):
        number = BYSTANDER.add(number)
        words[index % 97] = sorted([number, index, -index])
        numpy.dot(ROW, ROW.T)


THERE, BACK = threading.Lock(), threading.Lock()
THERE.acquire()
BACK.acquire()


def answer():
    while True:
        THERE.acquire()
        BACK.release()


def switches(count):
    for _ in range(count // 2):
        THERE.release()
        BACK.acquire()


def busy(milliseconds):
    end = time.perf_counter_ns() + milliseconds * 1_000_000
    while time.perf_counter_ns() < end:
        calls(10)
        predictions(5)


WORK = {
    "calls": calls,
    "calls-sdk": calls_sdk,
    "pipeline": predictions,
    "pipeline-sdk": predictions_sdk,
    "untraced": untraced,
    "switches": switches,
    "busy": busy,
}


def main():
    threading.Thread(target=answer, daemon=True).start()
    print("ready", id(Meter.predict.__code__), flush=True)
    for line in sys.stdin:
        work, count = line.split()
        started = time.perf_counter_ns()
        WORK[work](int(count))
        taken = time.perf_counter_ns() - started
        PROVIDER.force_flush()
        print(f"done {work} {count} {taken}", flush=True)


main()
