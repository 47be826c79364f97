"""Estimators in nothing but Python, for interpreters that have no packages, and whatever may happen to their calls.

Usage: target.py WHAT COUNT [through-c]. With `through-c` each method passes C code that calls Python code. WHAT:
  chain       predictions from the main thread
  threads     from four threads, which begin with the batch
  forms       in every form that a call can have
  raise       every third fails in a step; caught outside
  keep        the same, and the exceptions are kept with their tracebacks
  midway      fails in a chain inside a chain; caught in between, and raised again as another one by every second
  forest      models of many small models, which are of no interest, and models that are excluded
  recursion   a method that calls itself COUNT deep on one object, and through objects of one class
  generators  a chain that is asked from within generators, some of them never finished
  references  while others take and drop references to the code of the methods
  replaced    by a model that is replaced after every prediction
  unpickled   by one of two models that take each other's place after every hundred predictions; 3 ms between them
  request     by a model that is loaded for each prediction and dropped; 3 ms between them
  clinging    while the frame of every third call of a step is kept
  overflow    a method that calls itself until Python refuses
  signals     while a handler of signals predicts, too
  fork        in processes that are forked within a call, COUNT for each batch
  exec        until, within a call, another program takes the place of this one
  exit        until a step ends the process
  uncaught    until nobody catches what a step raises
"""

import functools
import gc
import operator
import os
import pathlib
import pickle
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve


# What each method does first: nothing, or a call of Python code by C code, which chain mode sees.
pass_c = functools.partial(lambda: None) if "through-c" in sys.argv else object


class BadRow(ValueError):
    """A row that the model cannot take."""


class Estimator:
    """What the map asks for."""


class Scale(Estimator):
    def __init__(self, factor):
        self.factor = factor

    def transform(self, rows):
        pass_c()
        if rows[0] is None:
            raise BadRow("nothing")
        return [row * self.factor for row in rows]


class Sign(Estimator):
    """Goes through its `predict_proba`."""

    def predict_proba(self, rows):
        pass_c()
        return [(0.0, 1.0) if row > 0 else (1.0, 0.0) for row in rows]

    def predict(self, rows):
        pass_c()
        return [int(positive > 0.5) for _, positive in self.predict_proba(rows)]


class Chain(Estimator):
    def __init__(self, *steps):
        self.steps = list(steps)

    def predict(self, rows):
        pass_c()
        for _, step in self.steps[:-1]:
            rows = step.transform(rows)
        return self.steps[-1][1].predict(rows)


class Patient(Estimator):
    """Asks a chain, and does without it where that fails."""

    def __init__(self, model):
        self.model = model
        self.failures = 0

    def predict(self, rows):
        pass_c()
        try:
            return self.model.predict(rows)
        except BadRow as refusal:
            self.failures += 1
            if self.failures % 2:
                return [0]
            raise KeyError("failed again") from refusal


class Tree(Estimator):
    def __init__(self, limit):
        self.limit = limit

    def predict(self, rows):
        pass_c()
        return [int(row > self.limit) for row in rows]


class Above(Tree):
    """The same under another name."""


class Stump(Tree):
    """The map excludes it."""


class Forest(Estimator):
    def __init__(self, *trees):
        self.trees = trees

    def predict(self, rows):
        pass_c()
        return [sum(votes) for votes in zip(*(tree.predict(rows) for tree in self.trees))]


class Nested(Estimator):
    """Asks itself, or another of its kind."""

    def __init__(self, other=None):
        self.other = other or self

    def predict(self, depth):
        pass_c()
        return 1 + self.other.predict(depth - 1) if depth else 0


TRUTH = Truth()


def simple():
    return Chain(("scale", Scale(3)), ("sign", Sign()))


def expect(fails=False):
    """The spans of a prediction of that chain."""
    error = "BadRow" if fails else None
    TRUTH.add("Chain.predict", error=error)
    TRUTH.add("Chain.predict", "Scale.transform", step="scale", error=error)
    if not fails:
        TRUTH.add("Chain.predict", "Sign.predict", step="sign")
        TRUTH.add("Chain.predict", "Sign.predict", "Sign.predict_proba")


def rows_of(number):
    return [number % 7 - 3, number % 5 - 2]


def fails(number):
    return number % 3 == 2


def chain(count):
    model = simple()

    def batch():
        output = []
        for number in range(count):
            expect()
            output += model.predict(rows_of(number))
        return output

    return batch


def threads(count):
    share = chain(count)

    def batch():
        outputs = [[] for _ in range(4)]
        workers = [threading.Thread(target=lambda output=output: output.extend(share())) for output in outputs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return outputs

    return batch


def forms(count):
    model = simple()
    bound = model.predict
    ask_later = operator.methodcaller("predict", [1, -1])
    asks = [
        model.predict,
        lambda rows: model.predict(rows),
        lambda rows: model.predict(rows=rows),
        lambda rows: Chain.predict(model, rows),
        lambda rows: Chain.predict(self=model, rows=rows),
        lambda rows: model.predict(*[rows]),
        lambda rows: model.predict(**{"rows": rows}),
        lambda rows: Chain.predict(*(model, rows)),
        lambda rows: getattr(model, "predict")(rows),
        lambda rows: bound(rows),
        lambda rows: next(map(model.predict, [rows])),
        lambda rows: max([rows], key=model.predict),
        lambda rows: ask_later(model),
        functools.partial(Chain.predict, model),
        functools.partial(model.predict),
    ]

    def batch():
        output = []
        for number in range(count):
            for ask in asks:
                expect()
                output += ask(rows_of(number))
        return output

    return batch


def refused(count, keeps):
    model = simple()
    kept = []

    def batch():
        output = []
        for number in range(count):
            expect(fails=fails(number))
            try:
                output += model.predict([None] if fails(number) else rows_of(number))
            except BadRow as refusal:
                output.append("refused")
                if keeps:
                    kept.append(refusal)
        # What an exception has left last may be known to be over only when the next call begins.
        expect()
        return output + model.predict([1])

    return batch


def midway(count):
    patient = Patient(Chain(("scale", Scale(3)), ("tree", Tree(1))))
    model = Chain(("patient", patient))

    def expect_all(inner, outer):
        TRUTH.add("Chain.predict", error=outer)
        TRUTH.add("Chain.predict", "Patient.predict", step="patient", error=outer)
        around = ("Chain.predict", "Patient.predict", "Chain.predict")
        TRUTH.add(*around, error=inner)
        TRUTH.add(*around, "Scale.transform", step="scale", error=inner)
        if not inner:
            TRUTH.add(*around, "Tree.predict", step="tree")

    def batch():
        output = []
        for number in range(count):
            inner = "BadRow" if fails(number) else None
            outer = "KeyError" if inner and patient.failures % 2 else None
            expect_all(inner, outer)
            try:
                output += model.predict([None] if inner else rows_of(number))
            except KeyError:
                output.append("failed")
        # As above.
        expect_all(None, None)
        return output + model.predict([1])

    return batch


def forest(count):
    forest = Chain(("scale", Scale(2)), ("forest", Forest(Tree(1), Tree(2), Tree(3))))
    stump = Chain(("scale", Scale(2)), ("stump", Stump(1)))

    def batch():
        output = []
        for number in range(count):
            TRUTH.add("Chain.predict", count=2)
            TRUTH.add("Chain.predict", "Scale.transform", step="scale", count=2)
            TRUTH.add("Chain.predict", "Forest.predict", step="forest")
            output += forest.predict(rows_of(number))
            output += stump.predict(rows_of(number))
        return output

    return batch


def recursion(depth):
    alone, first = Nested(), Nested()
    first.other = Nested(first)

    def batch():
        # A call on the object of the one around it is a span; one on another object of the class is not.
        for levels in range(1, depth + 2):
            TRUTH.add(*["Nested.predict"] * levels)
        TRUTH.add("Nested.predict")
        return [alone.predict(depth), first.predict(depth)]

    return batch


def generators(count):
    model = simple()

    def asked():
        for number in range(count):
            expect()
            yield model.predict(rows_of(number))

    def batch():
        output = []
        for first, second in zip(asked(), asked()):
            output += first + second
        abandoned = asked()
        output += next(abandoned)
        del abandoned
        return output + functools.reduce(operator.add, asked())

    return batch


class Keeper(Scale):
    """Keeps what holds its own code, for a while."""

    kept = []

    def transform(self, rows):
        pass_c()
        frame = sys._getframe()
        self.kept += [frame.f_code, frame.f_back.f_code, frame, lambda: self]
        del self.kept[:-40]
        return super().transform(rows)


def references(count):
    methods = [Chain.predict, Scale.transform, Keeper.transform, Tree.predict]
    model = Chain(("scale", Scale(2)), ("keeper", Keeper(2)), ("tree", Tree(1)))

    def bystander(stopped):
        held = []
        while not stopped.wait(0.001):
            held += [method.__code__ for method in methods] * 20
            held += [frame.f_code for frame in sys._current_frames().values()]
            if len(held) > 2000:
                held.clear()
                gc.collect()

    def profile(frame, event, argument):
        profile.seen = (frame, frame.f_code)

    def batch():
        output = []
        stopped = threading.Event()
        other = threading.Thread(target=bystander, args=[stopped])
        other.start()
        try:
            for number in range(count):
                sys.setprofile(profile if number % 2 else None)
                held = [method.__code__ for method in methods]
                TRUTH.add("Chain.predict")
                TRUTH.add("Chain.predict", "Scale.transform", step="scale")
                TRUTH.add("Chain.predict", "Keeper.transform", step="keeper")
                # The one of the base class, on the same object.
                TRUTH.add("Chain.predict", "Keeper.transform", "Keeper.transform")
                TRUTH.add("Chain.predict", "Tree.predict", step="tree")
                output += model.predict(rows_of(number))
                del held
        finally:
            sys.setprofile(None)
            stopped.set()
            other.join()
        return output

    return batch


def replaced(count):
    def batch():
        output = []
        for number in range(count):
            expect()
            output += simple().predict(rows_of(number))
        return output

    return batch


def loaded(count, every):
    """By models that never live long. They have the same names for other steps, so that a name that outlives its object is
    seen to be wrong."""
    last = {"first": Tree(1), "second": Above(1)}
    texts = [
        pickle.dumps(Chain((name, Scale(2)), (other, Scale(3)), ("last", last[name])))
        for name, other in (("first", "second"), ("second", "first"))
    ]
    state = {"asked": 0, "model": None}

    def batch():
        output = []
        for number in range(count):
            turn, rest = divmod(state["asked"], every)
            state["asked"] += 1
            if not rest:
                # The old one goes first, so that the new one takes its memory.
                state["model"] = None
                state["model"] = pickle.loads(texts[turn % 2])
            output += state["model"].predict(rows_of(number))
            if every == 1:
                state["model"] = None
            time.sleep(0.003)
        return output

    return batch


class Clinging(Scale):
    """Keeps the frames of some of its calls."""

    kept = []
    calls = 0

    def transform(self, rows):
        pass_c()
        Clinging.calls += 1
        if Clinging.calls % 3 == 0:
            self.kept.append(sys._getframe())
        return [row * self.factor for row in rows]


def clinging(count):
    model = Chain(("scale", Scale(3)), ("clinging", Clinging(2)), ("tree", Tree(1)))

    def batch():
        output = []
        for number in range(count):
            TRUTH.add("Chain.predict")
            TRUTH.add("Chain.predict", "Scale.transform", step="scale")
            TRUTH.add("Chain.predict", "Clinging.transform", step="clinging")
            TRUTH.add("Chain.predict", "Tree.predict", step="tree")
            output += model.predict(rows_of(number))
        return output

    return batch


def overflow(count):
    nested = Nested()

    def batch():
        output = []
        for _ in range(count):
            try:
                nested.predict(1_000_000)
            except RecursionError:
                output.append("too deep")
        return output

    return batch


def signals(count):
    model, other = simple(), simple()
    is_wanted = False

    def handle(*_):
        other.predict([1, 2])
        # The next one only now: on a busy machine a handler may take longer than the time between two signals.
        if is_wanted:
            signal.setitimer(signal.ITIMER_REAL, 0.0005)

    signal.signal(signal.SIGALRM, handle)

    def batch():
        nonlocal is_wanted
        is_wanted = True
        output = []
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        for number in range(count):
            output += model.predict(rows_of(number))
        is_wanted = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        return output

    return batch


class Doing(Scale):
    """Does something else as well."""

    def __init__(self, something):
        super().__init__(1)
        self.something = something

    def transform(self, rows):
        pass_c()
        self.something()
        return super().transform(rows)


def doing(something):
    return Chain(("scale", Scale(3)), ("doing", Doing(something)), ("sign", Sign()))


def fork(count):
    ended = []
    model = simple()

    def child():
        process = os.fork()
        if not process:
            os._exit(sum(model.predict([1, 2, 3])))
        ended.append(os.waitpid(process, 0)[1])

    asked = doing(child)
    return lambda: [asked.predict(rows_of(number)) for number in range(count)] + ended


def asked_until(something):
    def what(count):
        left = [count]

        def later():
            left[0] -= 1
            if not left[0]:
                something()

        model = doing(later)
        return lambda: [model.predict(rows_of(number)) for number in range(count)]

    return what


def refuse():
    raise BadRow("nobody catches this")


OTHER_PROGRAM = [sys.executable, __file__, "chain", "5"]

WHAT = {
    "chain": chain,
    "threads": threads,
    "forms": forms,
    "raise": lambda count: refused(count, False),
    "keep": lambda count: refused(count, True),
    "midway": midway,
    "forest": forest,
    "recursion": recursion,
    "generators": generators,
    "references": references,
    "replaced": replaced,
    "unpickled": lambda count: loaded(count, 100),
    "request": lambda count: loaded(count, 1),
    "clinging": clinging,
    "overflow": overflow,
    "signals": signals,
    "fork": fork,
    "exec": asked_until(lambda: os.execv(OTHER_PROGRAM[0], OTHER_PROGRAM)),
    "exit": asked_until(lambda: sys.exit(7)),
    "uncaught": asked_until(refuse),
}

BATCH = WHAT[sys.argv[1]](int(sys.argv[2]))
serve(lambda: repr(BATCH()).encode(), TRUTH)
