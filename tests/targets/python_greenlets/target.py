"""Greenlets: calls on one thread that wait for each other, each in the middle of another.

Usage: target.py COUNT [through-c]: so many predictions in each of five greenlets, which take turns at each step. Every fifth
fails. With `through-c` each method passes C code that calls Python code.
"""

import functools
import pathlib
import sys

import greenlet

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve


# What each method does first: nothing, or a call of Python code by C code, which chain mode sees.
pass_c = functools.partial(lambda: None) if "through-c" in sys.argv else object


class Estimator:
    """What the map asks for."""


class Waiting(Estimator):
    """Lets the others run, as a step does that asks a database."""

    def transform(self, rows):
        pass_c()
        try:
            raise KeyError("tried")
        except KeyError:
            pass
        MAIN.switch()
        if rows is None:
            raise ValueError("nothing")
        return rows


class Sign(Estimator):
    def predict(self, rows):
        pass_c()
        return [int(row > 0) for row in rows]


class Chain(Estimator):
    def __init__(self, *steps):
        self.steps = list(steps)

    def predict(self, rows):
        pass_c()
        for _, step in self.steps[:-1]:
            rows = step.transform(rows)
        return self.steps[-1][1].predict(rows)


TRUTH = Truth()
MAIN = greenlet.getcurrent()
COUNT = int(sys.argv[1])
MODEL = Chain(("waiting", Waiting()), ("sign", Sign()))


def ask(first, output):
    for number in range(first, first + COUNT):
        error = "ValueError" if number % 5 == 4 else None
        TRUTH.add("Chain.predict", error=error)
        TRUTH.add("Chain.predict", "Waiting.transform", step="waiting", error=error)
        if not error:
            TRUTH.add("Chain.predict", "Sign.predict", step="sign")
        try:
            output += MODEL.predict(None if error else [number, -number])
        except ValueError:
            output.append("refused")
        if number % 2:
            MAIN.switch()


def batch():
    output = []
    running = [greenlet.greenlet(lambda first=first: ask(first, output)) for first in range(5)]
    turn = 0
    while running:
        # Another order each time: who has waited longest is not always next.
        turn = (turn * 7 + 3) % len(running)
        running[turn].switch()
        running = [one for one in running if not one.dead]
    return repr(output).encode()


serve(batch, TRUTH)
