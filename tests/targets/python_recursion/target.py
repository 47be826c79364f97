"""Methods that call themselves, on one object and on others, and methods that are asked from within generators.

Usage: target.py ROUNDS DEPTH
"""

import pathlib
import sys

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.pipeline import Pipeline

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


class Halving(BaseEstimator, ClassifierMixin):
    """Predicts the halves of its rows each for itself, down to one row."""

    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        return self

    def predict(self, X):
        if len(X) == 1:
            return (X[:, 0] > 0).astype(int)
        middle = len(X) // 2
        return numpy.concatenate([self.predict(X[:middle]), self.predict(X[middle:])])


class Doubling(BaseEstimator, TransformerMixin):
    """Doubles, row by row in a generator."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return numpy.stack(list(self._rows(X)))

    def _rows(self, X):
        for row in X:
            yield row * 2


class Streaming(BaseEstimator, ClassifierMixin):
    """Its `predict` is a generator: a call of it returns at once, and its frame lives on. Not to be watched."""

    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        return self

    def predict(self, X):
        for row in X:
            yield int(row.sum() > 0)


def main(rounds, depth):
    features = numpy.random.default_rng(53).normal(size=(64, 2))
    labels = (features[:, 0] > 0).astype(int)
    halving = Halving().fit(features, labels)
    streaming = Streaming().fit(features, labels)
    # A pipeline in a pipeline in a pipeline, all of one class.
    nested = halving
    for level in range(depth):
        nested = Pipeline([("double", Doubling()), (f"level{level}", nested)])
    nested.fit(features, labels)
    truth = Truth()

    def halves(path, rows, step=None):
        truth.add(*path, "Halving.predict", step=step)
        if rows > 1:
            inside = (*path, "Halving.predict")
            halves(inside, rows // 2)
            halves(inside, rows - rows // 2)

    def levels():
        path, steps = (), [f"level{level}" for level in reversed(range(depth))]
        for step in [None, *steps[:-1]]:
            path = (*path, "Pipeline.predict")
            truth.add(*path, step=step)
            truth.add(*path, "Doubling.transform", step="double")
        halves(path, 3, steps[-1])

    def twice(rows):
        """Two generators whose turns alternate, with a call between their turns."""
        for first, second in zip(streaming.predict(rows), (int(value) for value in streaming.predict(rows))):
            truth.add("Doubling.transform")
            yield doubling_of_all(rows)[0, 0] + first + second

    def doubling_of_all(rows):
        return nested.steps[0][1].transform(rows)

    def batch():
        output = []
        for number in range(rounds):
            rows = features[number % 50 : number % 50 + 5]
            halves((), len(rows))
            output.append(halving.predict(rows).tobytes())
            levels()
            output.append(nested.predict(rows[:3]).tobytes())
            output.append(numpy.array(list(twice(rows))).tobytes())
        return b"".join(output)

    serve(batch, truth)


main(int(sys.argv[1]), int(sys.argv[2]))
