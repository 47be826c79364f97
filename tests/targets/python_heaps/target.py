"""A small chain in a process that holds far more than a look at it can go through.

Usage: target.py WHAT COUNT. WHAT stands beside the steps of the chain, or elsewhere:
  wide     one list of COUNT numbers, listed a hundred times
  cyclic   lists, tuples and dictionaries that hold each other
  words    a dictionary of COUNT entries
  deep     COUNT lists inside each other
  objects  COUNT objects of a traced class, in no container
  classes  COUNT classes that a map asks for, without objects
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve


class Estimator:
    """What the map asks for."""


class Scale(Estimator):
    def transform(self, rows):
        return [row * 3 for row in rows]


class Sign(Estimator):
    def predict(self, rows):
        return [int(row > 0) for row in rows]


class Chain(Estimator):
    def __init__(self, others):
        self.scale, self.sign = Scale(), Sign()
        self.steps = [("scale", self.scale), *others, ("sign", self.sign)]

    def predict(self, rows):
        return self.sign.predict(self.scale.transform(rows))


def wide(count):
    return [[0] * count] * 100


def cyclic(_):
    outer, names = [], {}
    outer += [outer, (outer, names), names]
    names.update(outer=outer, names=names)
    return [outer, names]


def deep(count):
    lists = []
    for _ in range(count):
        lists = [lists]
    KEPT.append(lists)
    return [lists]


def objects(count):
    KEPT.extend(Scale() for _ in range(count))
    return []


def classes(count):
    for number in range(count):
        KEPT.append(type(f"Model{number}", (Estimator,), {"predict": lambda self, rows: rows}))
    return []


KEPT = []
TRUTH = Truth()
WHAT = {
    "wide": wide,
    "cyclic": cyclic,
    "words": lambda count: [{str(number): number for number in range(count)}],
    "deep": deep,
    "objects": objects,
    "classes": classes,
}
CHAIN = Chain(WHAT[sys.argv[1]](int(sys.argv[2])))


def batch():
    output = []
    for number in range(50):
        output += CHAIN.predict([number - 2, 7, -number])
        TRUTH.add("Chain.predict")
        TRUTH.add("Chain.predict", "Scale.transform", step="scale")
        TRUTH.add("Chain.predict", "Sign.predict", step="sign")
    return repr(output).encode()


serve(batch, TRUTH)
