"""A model of more steps than a processor has debug registers, each with code of its own; nothing but Python.

Usage: target.py COUNT, predictions in each batch.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve

# C code that calls Python code.
pass_c = functools.partial(lambda: None)


class Estimator:
    """What the map asks for."""


class Double(Estimator):
    def transform(self, rows):
        pass_c()
        return [row * 2 for row in rows]


class Shift(Estimator):
    def transform(self, rows):
        pass_c()
        return [row + 1 for row in rows]


class Square(Estimator):
    def transform(self, rows):
        pass_c()
        return [row * row for row in rows]


class Clip(Estimator):
    def transform(self, rows):
        pass_c()
        return [min(row, 1_000) for row in rows]


class Stump(Estimator):
    """Excluded by the map."""

    def transform(self, rows):
        pass_c()
        return rows


class Sum(Estimator):
    def predict(self, rows):
        pass_c()
        return sum(rows)


class Chain(Estimator):
    def __init__(self, steps):
        self.steps = steps

    def predict(self, rows):
        pass_c()
        for _, step in self.steps[:-1]:
            rows = step.transform(rows)
        return self.steps[-1][1].predict(rows)


STEPS = [
    ("double", Double()),
    ("shift", Shift()),
    ("square", Square()),
    ("clip", Clip()),
    ("stump", Stump()),
    ("sum", Sum()),
]


def main(count):
    model = Chain(STEPS)
    truth = Truth()

    def batch():
        truth.add("Chain.predict", count=count)
        return repr([model.predict([number, number + 1]) for number in range(count)]).encode()

    serve(batch, truth)


main(int(sys.argv[1]))
