"""Programs of which there is much: workers that come and go, classes, calls without a pause; nothing but Python.

Usage: target.py WHAT [NUMBER], until its input ends. WHAT:
  workers NUMBER  one worker that stays, and as many others at a time, each of which ends after a quarter of a second at most
  classes NUMBER  so many classes, of which the last three have an object
  chain           predictions of four slow steps, one after the other without a pause

Its first line is `ready`, and the number of the worker that stays where there is one.
"""

import os
import random
import select
import sys
import time


class Estimator:
    """What the map asks for."""


class Sum(Estimator):
    def predict(self, rows):
        return sum(rows)


class Slow(Estimator):
    def transform(self, rows):
        time.sleep(0.008)
        return rows


class Chain(Estimator):
    def __init__(self):
        self.steps = [(name, Slow()) for name in ("first", "second", "third", "fourth")]

    def predict(self, rows):
        for _, step in self.steps:
            rows = step.transform(rows)
        return rows


def is_over():
    """Whether the input has ended."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def work(model, seconds):
    """What a worker does in its life. It ends with its server, too."""
    server = os.getppid()
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.getppid() == server:
        model.predict([1, 2])
        time.sleep(0.01)
    os._exit(0)


def fork(model, seconds):
    process = os.fork()
    if process == 0:
        work(model, seconds)
    return process


def workers(count):
    model = Sum()
    print("ready", fork(model, 600), flush=True)
    others = set()
    while not is_over():
        while len(others) < count:
            others.add(fork(model, random.random() / 4))
        process, _ = os.waitpid(-1, os.WNOHANG)
        others.discard(process)
        time.sleep(0.005)


def classes(count):
    made = [type(f"Model{number}", (Estimator,), {"predict": eval(f"lambda self, rows: {number}")}) for number in range(count)]
    models = [kind() for kind in made[-3:]]
    print("ready", flush=True)
    while not is_over():
        for model in models:
            model.predict([1])
        time.sleep(0.005)


def chain():
    model = Chain()
    print("ready", flush=True)
    while not is_over():
        model.predict([1])


{"workers": workers, "classes": classes, "chain": chain}[sys.argv[1]](*map(int, sys.argv[2:]))
