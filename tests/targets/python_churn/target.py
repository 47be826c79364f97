"""A server with two workers that stay, and others that come and go; nothing but Python.

Usage: target.py COUNT [through-c], until its input ends. Its first line is `ready`, and the numbers of the two workers that stay: from now
on both predict, without a pause to speak of, once they are told to. With `through-c` each method passes C code that calls Python
code. Orders, each answered by a line:
  go             the two workers that stay begin to predict
  churn SECONDS  COUNT other workers at a time, each of which lives for 0.1 to 3 seconds and predicts; `ready` when all have ended
  stop           the two workers end; `ready`, and how often each has predicted
"""

import functools
import os
import random
import select
import sys
import time


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


def stay(model, orders, results):
    """What a worker that stays does: it predicts from the first line to the end of its orders, and tells how often."""
    orders.readline()
    count = 0
    # What can be read without waiting is the end.
    while not select.select([orders], [], [], 0)[0]:
        model.predict([count])
        count += 1
        time.sleep(0.005)
    print(count, file=results, flush=True)
    os._exit(0)


def pass_by(model, seconds):
    """What the other ones do. They end with their server, too."""
    server = os.getppid()
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.getppid() == server:
        model.predict([1])
        time.sleep(0.01)
    os._exit(0)


class Stays:
    """A worker that stays, as the server sees it."""

    def __init__(self, model, others):
        (orders_in, orders), (results_in, results) = os.pipe(), os.pipe()
        self.number = os.fork()
        if self.number == 0:
            for descriptor in [orders, results_in, *(other.orders.fileno() for other in others)]:
                os.close(descriptor)
            stay(model, os.fdopen(orders_in), os.fdopen(results, "w"))
        os.close(orders_in)
        os.close(results)
        self.orders, self.results = os.fdopen(orders, "w"), os.fdopen(results_in)

    def end(self):
        self.orders.close()
        count = int(self.results.readline())
        os.waitpid(self.number, 0)
        return count


def churn(model, stays, count, seconds):
    end = time.monotonic() + seconds
    others = set()
    while others or time.monotonic() < end:
        while len(others) < count and time.monotonic() < end:
            process = os.fork()
            if process == 0:
                for worker in stays:
                    os.close(worker.orders.fileno())
                pass_by(model, random.uniform(0.1, 3))
            others.add(process)
        process, _ = os.waitpid(-1, os.WNOHANG)
        others.discard(process)
        time.sleep(0.01)


def main(count):
    model = Sum()
    stays = []
    for _ in range(2):
        stays.append(Stays(model, stays))
    print("ready", *(worker.number for worker in stays), flush=True)
    for line in sys.stdin:
        order, *words = line.split()
        if order == "go":
            for worker in stays:
                print("go", file=worker.orders, flush=True)
            print("ready", flush=True)
        elif order == "churn":
            churn(model, stays, count, float(words[0]))
            print("ready", flush=True)
        else:
            print("ready", *(worker.end() for worker in stays), flush=True)


main(int(sys.argv[1]))
