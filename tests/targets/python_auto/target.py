"""Models that are called without end.

Usage: target.py many|more|few|plain. `many`: two pipelines, with more methods than there are debug registers. `more`: the same, the second
one from the second line of its standard input on. `few`: one, with as many methods as there are registers. `plain`: a pipeline of classes
that call no C code which calls Python code. Says `ready`, begins with the first line and ends when its input is closed.
"""

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
    called = known[:1] if kind == "more" else known
    is_over = threading.Event()

    def predict():
        nonlocal called
        while not is_over.is_set():
            for model, features in called:
                model.predict(features)
            time.sleep(0.003)

    thread = threading.Thread(target=predict)
    print("ready", flush=True)
    sys.stdin.readline()
    thread.start()
    for _ in sys.stdin:
        called = known
    is_over.set()
    thread.join()


main()
