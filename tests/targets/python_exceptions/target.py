"""Predictions that fail: every third one raises inside a step, two pipelines deep, and is caught outside or half-way.

Usage: target.py PREDICTS [--keep]. With `--keep` the exceptions are kept, and their tracebacks with them, which hold on to
the frames of the calls that they left.
"""

import argparse
import pathlib
import sys

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


class BadRow(ValueError):
    """A row that the model cannot take."""


class Guard(BaseEstimator, TransformerMixin):
    """Refuses rows that begin with a large number."""

    def fit(self, X, y=None):
        self.limit_ = 100.0
        return self

    def transform(self, X):
        if (X[:, 0] > self.limit_).any():
            raise BadRow("a row begins with a large number")
        return X


class Sign(BaseEstimator, ClassifierMixin):
    """The sign of the sum."""

    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        return self

    def predict(self, X):
        return (X.sum(axis=1) > 0).astype(int)


class Fallback(BaseEstimator, ClassifierMixin):
    """Asks the model inside, and says 0 where that fails: the exception ends here."""

    def __init__(self, model=None):
        self.model = model

    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        self.model_ = self.model.fit(X, y)
        return self

    def predict(self, X):
        try:
            return self.model_.predict(X)
        except BadRow:
            return numpy.zeros(len(X), dtype=int)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predicts", type=int)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()

    random = numpy.random.default_rng(3)
    features = random.normal(size=(100, 3))
    labels = (features[:, 0] > 0).astype(int)
    # Guard comes after the scaler, so that one step has ended when the next one fails.
    prepare = Pipeline([("scaler", StandardScaler()), ("guard", Guard())])
    strict = Pipeline([("prepare", prepare), ("sign", Sign())]).fit(features, labels)
    forgiving = Pipeline([("fallback", Fallback(Pipeline([("guard", Guard()), ("sign", Sign())])))]).fit(features, labels)
    truth = Truth()
    kept = []

    def ask_strict(rows, fails):
        error = "BadRow" if fails else None
        outer, inner = "Pipeline.predict", "Pipeline.transform"
        truth.add(outer, error=error)
        truth.add(outer, inner, step="prepare", error=error)
        truth.add(outer, inner, "StandardScaler.transform", step="scaler")
        truth.add(outer, inner, "Guard.transform", step="guard", error=error)
        if not fails:
            truth.add(outer, "Sign.predict", step="sign")
        try:
            return strict.predict(rows).tobytes()
        except BadRow as refusal:
            if arguments.keep:
                kept.append(refusal)
            return b"refused"

    def ask_forgiving(rows, fails):
        error = "BadRow" if fails else None
        outer, middle = "Pipeline.predict", "Fallback.predict"
        truth.add(outer)
        truth.add(outer, middle, step="fallback")
        truth.add(outer, middle, outer, error=error)
        truth.add(outer, middle, outer, "Guard.transform", step="guard", error=error)
        if not fails:
            truth.add(outer, middle, outer, "Sign.predict", step="sign")
        return forgiving.predict(rows).tobytes()

    def batch():
        output = []
        for number in range(arguments.predicts):
            rows = features[number % 90 : number % 90 + 4].copy()
            fails = number % 3 == 2
            if fails:
                rows[1, 0] = 1e9
            output += [ask_strict(rows, fails), ask_forgiving(rows, fails)]
        return b"".join(output)

    serve(batch, truth)


main()
