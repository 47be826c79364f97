"""A pipeline of three steps that predicts from several threads.

Usage: target.py PREDICTS THREADS [--late] [--probabilities]. PREDICTS in each batch, spread over the threads. The threads
are there before the first batch; with `--late` each batch starts its own.
"""

import argparse
import concurrent.futures
import pathlib
import sys
import threading

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def model():
    features = numpy.random.default_rng(11).normal(size=(300, 5))
    labels = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)
    steps = [("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())]
    return Pipeline(steps).fit(features, labels), features


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predicts", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--probabilities", action="store_true", help="predict_proba instead of predict")
    arguments = parser.parse_args()
    method = "predict_proba" if arguments.probabilities else "predict"
    pipeline, features = model()
    predict = getattr(pipeline, method)
    truth = Truth()

    def share(thread):
        """The part of one thread: its predictions in order."""
        output = []
        for number in range(thread, arguments.predicts, arguments.threads):
            first = number % 280
            output.append(predict(features[first : first + 1 + number % 7]).tobytes())
            truth.add(f"Pipeline.{method}")
            truth.add(f"Pipeline.{method}", "StandardScaler.transform", step="scaler")
            truth.add(f"Pipeline.{method}", "PolynomialFeatures.transform", step="poly")
            truth.add(f"Pipeline.{method}", f"LogisticRegression.{method}", step="clf")
        return b"".join(output)

    def pool():
        return concurrent.futures.ThreadPoolExecutor(arguments.threads, thread_name_prefix="predictor")

    def spread(executor):
        # The parts in the order of the threads, whichever is done first.
        return b"".join(executor.map(share, range(arguments.threads)))

    def late():
        with pool() as executor:
            return spread(executor)

    if arguments.late:
        serve(late, truth)
        return
    with pool() as executor:
        # A pool starts a thread only when all others are busy.
        started = threading.Barrier(arguments.threads)
        concurrent.futures.wait([executor.submit(started.wait) for _ in range(arguments.threads)])
        serve(lambda: spread(executor), truth)


main()
