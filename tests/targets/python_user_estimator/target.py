"""Estimators that nobody but their user knows: every way in which a class comes by its methods.

Usage: target.py PREDICTS [--super]. With `--super` a method also calls the one that it overrides, on the same object.
"""

import functools
import pathlib
import sys

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def checked(method):
    """A decorator in the usual manner."""

    @functools.wraps(method)
    def check(self, X, *rest):
        if X.ndim != 2:
            raise ValueError("rows and columns, please")
        return method(self, X, *rest)

    return check


class Shift(BaseEstimator, TransformerMixin):
    """A plain estimator."""

    def __init__(self, by=1.0):
        self.by = by

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X + self.by


class Inherited(Shift):
    """Has no method of its own."""


class Decorated(Shift):
    """Its method is wrapped."""

    @checked
    def transform(self, X):
        return X * self.by


class Captured(Shift):
    """Its receiver is captured by a closure."""

    def transform(self, X):
        return numpy.stack([(lambda row: row - self.by)(row) for row in X])


class Renamed(Shift):
    """Its receiver has another name, and there are default arguments."""

    def transform(this, X, factor=0.5, *, power=1):
        return (X * factor) ** power


class Louder(Shift):
    """Calls the method that it overrides."""

    def transform(self, X):
        return super().transform(X) * 2


def made_inside():
    class Local(Shift):
        """Its path has `<locals>` in it."""

        def transform(self, X):
            return X.copy()

    return Local


Local = made_inside()


class Threshold(BaseEstimator, ClassifierMixin):
    """Its `predict` goes through its `predict_proba`."""

    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        return self

    def predict_proba(self, X):
        chance = 1 / (1 + numpy.exp(-X.mean(axis=1)))
        return numpy.column_stack([1 - chance, chance])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Audited(Pipeline):
    """A pipeline of its own kind, with the methods of any other."""

    def audit(self):
        return [name for name, _ in self.steps]


class Bystander:
    """Has the methods, and is no estimator: no map is about it."""

    def predict(self, X):
        return X


def main(predicts, with_super):
    features = numpy.random.default_rng(31).normal(size=(100, 3))
    labels = (features[:, 0] > 0).astype(int)
    steps = [
        ("scaler", StandardScaler()),
        ("shift", Shift()),
        ("inherited", Inherited(2.0)),
        ("decorated", Decorated(0.5)),
        ("captured", Captured()),
        ("renamed", Renamed()),
        ("local", Local()),
        *([("louder", Louder())] if with_super else []),
        ("threshold", Threshold()),
    ]
    pipeline = Audited(steps).fit(features, labels)
    bystander = Bystander()
    truth = Truth()

    def batch():
        output = []
        for number in range(predicts):
            rows = bystander.predict(features[number % 90 : number % 90 + 5])
            output.append(pipeline.predict(rows).tobytes())
            truth.add("Audited.predict")
            for step, estimator in steps[:-1]:
                truth.add("Audited.predict", f"{type(estimator).__name__}.transform", step=step)
            if with_super:
                # The method of the base: a call on the same object, which has the name of its class.
                truth.add("Audited.predict", "Louder.transform", "Louder.transform")
            truth.add("Audited.predict", "Threshold.predict", step="threshold")
            truth.add("Audited.predict", "Threshold.predict", "Threshold.predict_proba")
        return b"".join(output)

    serve(batch, truth)


main(int(sys.argv[1]), "--super" in sys.argv)
