"""Fits or predicts with one model, and tells its spans: its own, by the original instrumentation, or none.

Usage: oracle.py CASE fit|predict [--instrument FILE] [--private-methods] [--repeat N]

Without `--instrument` it prints `ready`, does its work for each line on standard input, and ends with a digest of the
model's output. With it, it does the work once and writes the spans that opentelemetry-instrumentation-sklearn makes: a JSON
list in the order in which they began, each with its name and the index of its parent (`null` for a root).
"""

import argparse
import hashlib
import json
import os
import sys

from cases import CASES, features

PUBLIC_METHODS = ["fit", "transform", "predict", "predict_proba"]
PRIVATE_METHODS = ["_" + method for method in PUBLIC_METHODS]


def instrument(case, model, arguments):
    """Has the original make spans, and gives the exporter that collects them."""
    # Imported here: without `--instrument` nothing of it may be in the process.
    from opentelemetry import trace
    from opentelemetry.instrumentation.sklearn import SklearnInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    methods = PUBLIC_METHODS + (PRIVATE_METHODS if arguments.private_methods else [])
    if case == "random_forest_children":
        # Its rule for children works on a fitted object only, and on the trees that this object has at the time.
        from sklearn.ensemble import RandomForestClassifier

        rule = {RandomForestClassifier: ["estimators_"]}
        instrumentor = SklearnInstrumentor(methods=methods, recurse_attribs=rule, exclude_classes=[])
        instrumentor.instrument_estimator(model)
    else:
        SklearnInstrumentor(methods=methods, packages=["sklearn", "house"]).instrument()
    return exporter


def tree(exporter):
    """Spans in the order of their beginnings, each with the index of its parent."""
    # Of two that began at the same tick the outer one ended later.
    spans = sorted(exporter.get_finished_spans(), key=lambda span: (span.start_time, -span.end_time))
    index = {span.context.span_id: position for position, span in enumerate(spans)}
    return [{"name": span.name, "parent": index[span.parent.span_id] if span.parent else None} for span in spans]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("action", choices=["fit", "predict"])
    parser.add_argument("--instrument", metavar="FILE")
    parser.add_argument("--private-methods", action="store_true", help="also `_fit` and the like, as is its default")
    parser.add_argument("--repeat", type=int, default=1, help="times that the work is done for each line")
    arguments = parser.parse_args()

    model, answers = CASES[arguments.case]()
    X = features()
    y = answers(X)
    digest = hashlib.sha256()
    if arguments.action == "predict" or arguments.case == "random_forest_children":
        model.fit(X, y)

    def work():
        for _ in range(arguments.repeat):
            if arguments.action == "fit":
                model.fit(X, y)
            else:
                digest.update(model.predict(X).tobytes())

    if arguments.instrument:
        exporter = instrument(arguments.case, model, arguments)
        work()
        spans = tree(exporter)
        with open(arguments.instrument, "w") as file:
            json.dump(spans, file, indent=1)
            file.write(os.linesep)
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        work()
        print("ready", flush=True)
    if arguments.action == "fit":
        digest.update(model.predict(X).tobytes())
    print("digest", digest.hexdigest())


main()
