"""Models that are called without end.

Usage: target.py many|more|few|plain [WORKERS]. `many`: two pipelines, with more methods than there are debug registers. `more`: the same, the second
one from the second line of its standard input on. `few`: one, with as many methods as there are registers. `plain`: a pipeline of classes
that call no C code which calls Python code. Says `ready`, begins with the first line and ends when its input is closed. With WORKERS as
many processes that it has forked do the same, and it does nothing itself.
"""

import os
import sys
import threading
import time

import numpy
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler


class Adds(BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return [value + 1 for value in X]


class Doubles(Adds):
    def transform(self, X):
        return [value * 2 for value in X]


class Halves(Adds):
    def transform(self, X):
        return [value / 2 for value in X]


class Takes(Adds):
    def transform(self, X):
        return [value - 1 for value in X]


class Sums(Adds):
    def predict(self, X):
        total = 0
        for value in X:
            total += value
        return total


class Chain(Adds):
    def __init__(self, steps=()):
        self.steps = steps

    def predict(self, X):
        for _, step in self.steps[:-1]:
            X = step.transform(X)
        return self.steps[-1][1].predict(X)


def models(kind):
    features = numpy.random.default_rng(11).normal(size=(200, 5))
    labels = (features[:, 0] > 0).astype(int)
    fitted = lambda *steps: Pipeline(list(steps)).fit(features, labels)
    linear = ("scaler", StandardScaler()), ("clf", LogisticRegression())
    few = features[:5]
    if kind == "few":
        return [(fitted(*linear), few)]
    if kind in ("many", "more"):
        forest = ("minmax", MinMaxScaler()), ("forest", RandomForestClassifier(5))
        return [(fitted(linear[0], ("poly", PolynomialFeatures()), linear[1]), few), (fitted(*forest), few)]
    steps = [("adds", Adds()), ("doubles", Doubles()), ("halves", Halves()), ("takes", Takes()), ("sums", Sums())]
    return [(Chain(steps), [1, 2, 3])]


def main():
    kind = sys.argv[1]
    known = models(kind)
    lines = sys.stdin.buffer
    if len(sys.argv) > 2:
        lines = workers(int(sys.argv[2]))
    else:
        print("ready", flush=True)
    called = known[:1] if kind == "more" else known
    is_over = threading.Event()

    def predict():
        while not is_over.is_set():
            for model, features in called:
                model.predict(features)
            time.sleep(0.003)

    thread = threading.Thread(target=predict)
    lines.readline()
    thread.start()
    for _ in lines:
        called = known
    is_over.set()
    thread.join()


def workers(count):
    """Gives each worker what it reads. In the parent it passes on what that reads, and ends."""
    pipes = [os.pipe() for _ in range(count)]
    for read, _ in pipes:
        if os.fork() == 0:
            for _, write in pipes:
                os.close(write)
            return open(read, "rb")
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        for _, write in pipes:
            os.write(write, line)
    for _, write in pipes:
        os.close(write)
    for _ in pipes:
        os.wait()
    sys.exit()


main()
