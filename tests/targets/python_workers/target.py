"""A server that starts workers in its first batch and has them predict in the later ones; nothing but Python.

Usage: target.py HOW COUNT [through-c], COUNT predictions of each worker and of the server in each batch. With `through-c` each
method passes C code that calls Python code. HOW:
  fork    workers are forked, and have the server's model
  exec    workers are forked and execute another interpreter, which makes a model of its own
  shell   the same, by way of a shell
  nested  a worker is forked, and forks the other one
"""

import functools
import os
import pathlib
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve


pass_c = functools.partial(lambda: None) if "through-c" in sys.argv else object


class Estimator:
    """What the map asks for."""


class Scale(Estimator):
    def transform(self, rows):
        pass_c()
        return [row * 3 for row in rows]


class Sum(Estimator):
    def __init__(self):
        self.scale = Scale()

    def predict(self, rows):
        pass_c()
        return sum(self.scale.transform(rows))


def predictions(model, count):
    return [model.predict([number, number + 1]) for number in range(count)]


def work(model, orders, results):
    """What a worker does: a line with its number, then an answer for each line."""
    print(os.getpid(), file=results, flush=True)
    for line in orders:
        print(sum(predictions(model, int(line))), file=results, flush=True)


class Worker:
    """A worker as the server sees it."""

    def __init__(self, orders, results, wait):
        self.orders, self.results, self.wait = orders, results, wait
        results.readline()

    def ask(self, count):
        print(count, file=self.orders, flush=True)

    def answer(self):
        return int(self.results.readline())

    def end(self):
        self.orders.close()
        self.wait()


def pipes():
    """A pipe for orders and one for results, as files: to read and to write."""
    ends = [os.pipe(), os.pipe()]
    return [(os.fdopen(read, "r"), os.fdopen(write, "w")) for read, write in ends]


def forked(model, others, relay=None):
    """A worker that is forked; `relay` is what it does besides, in its own process."""
    (orders_in, orders), (results, results_out) = pipes()
    process = os.fork()
    if process:
        orders_in.close()
        results_out.close()
        return Worker(orders, results, lambda: os.waitpid(process, 0))
    for other in others:
        other.orders.close()
    orders.close()
    if relay:
        relay()
    work(model, orders_in, results_out)
    os._exit(0)


def nested(model):
    """Two workers, of which the second is forked by the first."""
    (inner_in, inner), (results, results_out) = pipes()
    children = []

    def relay():
        inner.close()
        child = os.fork()
        if not child:
            work(model, inner_in, results_out)
            os._exit(0)
        results_out.close()
        inner_in.close()
        children.append(child)

    outer = forked(model, [], relay)
    inner_in.close()
    results_out.close()
    return [outer, Worker(inner, results, lambda: None)]


def executed(through_shell):
    command = [sys.executable, __file__, "worker", *sys.argv[3:]]
    if through_shell:
        command = ["sh", "-c", shlex.join(command) + "; exit $?"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return Worker(child.stdin, child.stdout, child.wait)


def start(how, model):
    if how == "nested":
        return nested(model)
    workers = []
    for _ in range(2):
        workers.append(forked(model, workers) if how == "fork" else executed(how == "shell"))
    return workers


def main(how, count):
    model = Sum()
    workers = []
    truth = Truth()

    def batch():
        if not workers:
            workers.extend(start(how, model))
            # Something that is started and of no interest.
            subprocess.run(["true"], check=True)
            return b""
        for worker in workers:
            worker.ask(count)
        output = [sum(predictions(model, count))] + [worker.answer() for worker in workers]
        truth.add("Sum.predict", count=count * 3)
        truth.add("Sum.predict", "Scale.transform", count=count * 3)
        return repr(output).encode()

    serve(batch, truth)
    for worker in workers:
        worker.end()


if sys.argv[1] == "worker":
    work(Sum(), sys.stdin, sys.stdout)
else:
    main(sys.argv[1], int(sys.argv[2]))
