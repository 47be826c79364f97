"""Methods with something around them: what decorators, caches and monitoring agents make of a method.

Usage: target.py COUNT KIND... Each KIND has a chain of its own, whose methods all are of that kind:
  wraps       a decorator that says what it wraps
  silent      one that does not
  twice       one around the other
  cache       `functools.lru_cache`, which is written in C; it keeps nothing here
  partial     `functools.partialmethod`
  dispatch    `functools.singledispatchmethod`
  available   a descriptor that is there if it likes, as scikit-learn's
  slots       a wrapper with its wrapped function in a slot
  wrapt       a wrapper of wrapt, written in C: what agents put around methods
  agents      two agents, one around the other, with a decorator in between

At the end it also tells where the methods are written (`lines`).
"""

import functools
import pathlib
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve


class Estimator:
    """What the map asks for."""


def quietly(function):
    """A decorator that stands above a method from the start."""

    @functools.wraps(function)
    def call(self, *arguments):
        return function(self, *arguments)

    return call


class Scale(Estimator):
    def transform(self, rows):
        return [row * 3 for row in rows]


class Sign(Estimator):
    @quietly
    def predict(self, rows):
        return [int(row > 0) for row in rows]


class Chain(Estimator):
    def __init__(self, scale, sign):
        self.steps = [("scale", scale), ("sign", sign)]

    def predict(self, rows):
        (_, scale), (_, sign) = self.steps
        return sign.predict(scale.transform(rows))


def silent(function):
    def outer(*arguments):
        return function(*arguments)

    return outer


class Available:
    """Gives its function to objects, and nothing to classes."""

    def __init__(self, fn):
        self.fn = fn

    def __get__(self, instance, owner=None):
        if instance is None:
            raise AttributeError("not on the class")
        return types.MethodType(self.fn, instance)


class Slots:
    """Keeps a function, and one to call before it, where no dictionary shows them."""

    __slots__ = ("_before", "_inner")

    def __init__(self, inner):
        self._before = lambda: None
        self._inner = inner

    def __get__(self, instance, owner=None):
        return functools.partial(self, instance)

    def __call__(self, *arguments):
        self._before()
        return self._inner(*arguments)


def agent(function):
    import wrapt

    class Watcher(wrapt.FunctionWrapper):
        """Agents derive theirs."""

    def watch(wrapped, instance, arguments, keywords):
        return wrapped(*arguments, **keywords)

    return Watcher(function, watch)


def plain_agent(function):
    import wrapt

    return wrapt.FunctionWrapper(function, lambda wrapped, instance, arguments, keywords: wrapped(*arguments, **keywords))


KINDS = {
    "wraps": quietly,
    "silent": silent,
    "twice": lambda function: silent(quietly(function)),
    "cache": functools.lru_cache(maxsize=0),
    "partial": functools.partialmethod,
    "dispatch": functools.singledispatchmethod,
    "available": Available,
    "slots": Slots,
    "wrapt": plain_agent,
    "agents": lambda function: agent(quietly(agent(function))),
}

TRUTH = Truth()


def chain_of(kind):
    """A chain of classes of the same names, whose methods have a wrapper of this kind around them."""

    def wrapped(base, method):
        return type(base.__name__, (base,), {method: KINDS[kind](base.__dict__[method])})

    return wrapped(Chain, "predict")(wrapped(Scale, "transform")(), wrapped(Sign, "predict")())


def line_of(function):
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function.__code__.co_firstlineno


LINES = {
    "Chain.predict": line_of(Chain.predict),
    "Scale.transform": line_of(Scale.transform),
    "Sign.predict": line_of(Sign.predict),
}


def main(count, kinds):
    chains = [chain_of(kind) for kind in kinds]

    def batch():
        output = []
        for number in range(count):
            for chain in chains:
                output += chain.predict([number - 2, 7, -number])
                TRUTH.add("Chain.predict")
                TRUTH.add("Chain.predict", "Scale.transform", step="scale")
                TRUTH.add("Chain.predict", "Sign.predict", step="sign")
        return repr(output).encode()

    serve(batch, TRUTH, lines=LINES)


main(int(sys.argv[1]), sys.argv[2:])
