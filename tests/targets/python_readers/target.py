"""Whoever reads the code of a method takes references to it, as its calls do. None of that is a call.

Usage: target.py WHAT COUNT. WHAT:
  outside     readers of the code between predictions, each COUNT times
  inside      the same from within a step, in a generator that a step goes through, and in what a step leaves behind
  leaving     what a step leaves behind predicts when it is dropped
  failing     every call fails; the tracebacks are formatted, and some are kept
  folded      calls that are part of another one fail, and their exceptions are kept
  caught      calls that return although an exception has passed through them and is kept
  tracing     under profilers, trace functions and monitoring that look at the code
  deep        predictions from every depth of the Python stack
"""

import asyncio
import copy
import cProfile
import dis
import functools
import gc
import inspect
import linecache
import marshal
import operator
import pathlib
import sys
import threading
import traceback
import types
import typing
import weakref

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve


class Estimator:
    """What the map asks for."""


class Scale(Estimator):
    def transform(self, rows):
        if rows is None:
            raise ValueError("nothing")
        return [row * 3 for row in rows]


class Sign(Estimator):
    def predict(self, rows):
        if rows is None:
            raise ValueError("nothing")
        return [int(row > 0) for row in rows]


class Doing(Scale):
    """Does something else as well."""

    def __init__(self, something):
        self.something = something

    def transform(self, rows):
        left = self.something()
        return rows


class Chain(Estimator):
    def __init__(self, *steps):
        self.steps = list(steps)

    def predict(self, rows):
        for _, step in self.steps[:-1]:
            rows = step.transform(rows)
        return self.steps[-1][1].predict(rows)


class Forest(Estimator):
    def __init__(self, *trees):
        self.trees = trees

    def predict(self, rows):
        votes = []
        for tree in self.trees:
            try:
                votes.append(tree.predict(rows))
            except ValueError as refusal:
                votes.append(refusal)
        return votes


class Careful(Estimator):
    """Fails inside, and returns."""

    kept = []

    def transform(self, rows):
        try:
            raise KeyError("tried")
        except KeyError as refusal:
            self.kept.append(refusal)
            del self.kept[:-5]
        return rows


TRUTH = Truth()
METHODS = [Chain.predict, Scale.transform, Doing.transform, Sign.predict]
ROWS = [3, -2]


def simple():
    return Chain(("scale", Scale()), ("sign", Sign()))


def expect(step=None):
    TRUTH.add("Chain.predict")
    TRUTH.add("Chain.predict", "Scale.transform", step="scale")
    if step:
        TRUTH.add("Chain.predict", step, step="doing")
    TRUTH.add("Chain.predict", "Sign.predict", step="sign")


def lookers():
    """Functions that read the code with frames of many sizes, so that it stands at every place of a frame."""
    made = []
    for size in range(24):
        names = ", ".join(f"v{number}=method" for number in range(size))
        source = f"def look(method, {names}):\n    code = method.__code__\n    return code.co_argcount\n"
        scope = {"method": None}
        exec(source, scope)
        made.append(scope["look"])
        source = f"def look(method, {names}):\n    return [method.__code__ for _ in '12'][0].co_flags\n"
        exec(source, scope)
        made.append(scope["look"])
    return made


def change_code(method):
    method.__code__ = method.__code__


class Reading:
    """Reads code when it is dropped."""

    def __init__(self, method):
        self.method = method

    def __del__(self):
        code = self.method.__code__
        self.count = code.co_argcount


def by_weak_reference(method):
    class Dropped:
        pass

    dropped = Dropped()
    kept = weakref.ref(dropped, lambda _: method.__code__.co_flags)
    del dropped
    return kept


def by_collector(method):
    def look(phase, information):
        return method.__code__.co_flags

    gc.callbacks.append(look)
    gc.collect(0)
    gc.callbacks.remove(look)


def by_coroutine(method):
    async def look():
        code = method.__code__
        await asyncio.sleep(0)
        return code.co_flags

    coroutine = look()
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    coroutine.close()


def by_generator(method):
    def look():
        for _ in range(2):
            code = method.__code__
            yield code.co_flags

    return list(look())


def by_thread(method):
    thread = threading.Thread(target=lambda: [method.__code__.co_flags for _ in range(20)])
    thread.start()
    thread.join()


def by_recursion(method, depth=40):
    code = method.__code__
    return code.co_flags + by_recursion(method, depth - 1) if depth else 0


def by_decorator(method):
    @functools.wraps(method)
    def wrapper(*arguments):
        return method(*arguments)

    return inspect.signature(wrapper)


def by_stack(method):
    code = method.__code__
    traceback.extract_stack()
    traceback.format_stack()
    frame = sys._getframe()
    while frame is not None:
        held = frame.f_code, frame.f_lineno, frame.f_lasti
        frame = frame.f_back
    return code, held


def by_frames(method):
    return [frame.f_code.co_name for frame in sys._current_frames().values()], method.__code__


READERS = lookers() + [
    inspect.signature,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    asyncio.iscoroutinefunction,
    inspect.getfullargspec,
    inspect.getsourcefile,
    inspect.getsource,
    inspect.getclosurevars,
    inspect.unwrap,
    typing.get_type_hints,
    operator.attrgetter("__code__"),
    operator.attrgetter("__code__.co_argcount"),
    lambda method: getattr(method, "__code__"),
    lambda method: list(map(operator.attrgetter("__code__.co_flags"), [method] * 3)),
    lambda method: sorted([method, method], key=operator.attrgetter("__code__.co_flags")),
    lambda method: hash(method.__code__),
    lambda method: method.__code__ == method.__code__,
    lambda method: {method.__code__: 1}[method.__code__],
    lambda method: method.__code__.replace(co_name="other"),
    lambda method: marshal.dumps(method.__code__),
    lambda method: copy.copy(method.__code__),
    lambda method: copy.deepcopy([method.__code__]),
    lambda method: list(dis.get_instructions(method)),
    lambda method: list(dis.findlinestarts(method.__code__)),
    lambda method: list(getattr(method.__code__, "co_positions", tuple)()),
    lambda method: list(getattr(method.__code__, "co_lines", tuple)()),
    lambda method: gc.get_referrers(method.__code__) and None,
    lambda method: gc.get_referents(method) and None,
    lambda method: types.FunctionType(method.__code__, {}) and None,
    lambda method: functools.partial(method).func.__code__,
    lambda method: Reading(method) and None,
    lambda method: sys.getrefcount(method.__code__) and None,
    lambda method: (linecache.checkcache(), inspect.getsourcelines(method)) and None,
    change_code,
    by_weak_reference,
    by_collector,
    by_coroutine,
    by_generator,
    by_thread,
    by_recursion,
    by_decorator,
    by_stack,
    by_frames,
]


def outside(count):
    model = simple()

    def batch():
        output = []
        for _ in range(count):
            for reader in READERS:
                for method in METHODS:
                    reader(method)
            expect()
            output += model.predict(ROWS)
        return output

    return batch


def inside(count):
    state = {}

    def read():
        for method in METHODS:
            state["reader"](method)

    def generate():
        read()
        yield
        read()

    def leave():
        return [Reading(method) for method in METHODS]

    ways = [read, lambda: [None for _ in generate()], leave]
    models = [Chain(("scale", Scale()), ("doing", Doing(way)), ("sign", Sign())) for way in ways]

    def batch():
        output = []
        for _ in range(count):
            for state["reader"] in READERS[::2]:
                for model in models:
                    expect("Doing.transform")
                    output += model.predict(ROWS)
        return output

    return batch


class Predicting:
    """Predicts when it is dropped."""

    def __init__(self, model):
        self.model = model

    def __del__(self):
        self.model.predict(ROWS)


def leaving(count):
    tree = Sign()
    model = Chain(("doing", Doing(lambda: Predicting(tree))), ("sign", Sign()))

    def batch():
        output = []
        for _ in range(count):
            TRUTH.add("Chain.predict")
            TRUTH.add("Chain.predict", "Doing.transform", step="doing")
            TRUTH.add("Chain.predict", "Sign.predict", step="sign")
            output += model.predict(ROWS)
        return output

    return batch


def failing(count):
    model = simple()
    kept = []

    def failed():
        TRUTH.add("Chain.predict", error="ValueError")
        TRUTH.add("Chain.predict", "Scale.transform", step="scale", error="ValueError")
        try:
            return model.predict(None)
        except ValueError as refusal:
            text = traceback.format_exception(type(refusal), refusal, refusal.__traceback__)
            summary = traceback.StackSummary.extract(traceback.walk_tb(refusal.__traceback__), capture_locals=True)
            kept.append(refusal)
            del kept[:-3]
            inspect.trace()
            return [len(text), len(summary)]

    return lambda: [failed() for _ in range(count)]


def folded(count):
    model = Forest(Sign(), Sign(), Sign())
    kept = []

    def batch():
        output = []
        for number in range(count):
            TRUTH.add("Forest.predict")
            votes = model.predict(None if number % 2 else ROWS)
            kept.append(votes)
            del kept[:-2]
            for refusal in votes:
                if isinstance(refusal, ValueError):
                    traceback.format_tb(refusal.__traceback__)
            output.append(repr(votes))
        return output

    return batch


def caught(count):
    model = Chain(("careful", Careful()), ("sign", Sign()))

    def batch():
        output = []
        for _ in range(count):
            TRUTH.add("Chain.predict")
            TRUTH.add("Chain.predict", "Careful.transform", step="careful")
            TRUTH.add("Chain.predict", "Sign.predict", step="sign")
            output += model.predict(ROWS)
        return output

    return batch


def tracing(count):
    model = simple()

    def look(frame, event, argument):
        look.seen = frame.f_code, frame.f_lineno
        return look

    def profiled(ask):
        profiler = cProfile.Profile()
        return profiler.runcall(ask, ROWS)

    def traced(ask):
        before = sys.gettrace()
        sys.settrace(look)
        try:
            return ask(ROWS)
        finally:
            sys.settrace(before)

    def watched(ask):
        sys.setprofile(look)
        try:
            return ask(ROWS)
        finally:
            sys.setprofile(None)

    def monitored(ask):
        monitoring = getattr(sys, "monitoring", None)
        if monitoring is None:
            return ask(ROWS)
        events = monitoring.events
        monitoring.use_tool_id(3, "look")
        for event in (events.PY_START, events.PY_RETURN, events.LINE):
            monitoring.register_callback(3, event, lambda code, *_: code.co_name)
        monitoring.set_events(3, events.PY_START | events.PY_RETURN | events.LINE)
        try:
            return ask(ROWS)
        finally:
            monitoring.set_events(3, 0)
            monitoring.free_tool_id(3)

    def batch():
        output = []
        for _ in range(count):
            for way in (profiled, traced, watched, monitored):
                expect()
                output += way(model.predict)
        return output

    return batch


def deep(count):
    model = simple()

    def descend(depth, padding=(1, 2, 3)):
        if depth % 3 == 0:
            expect()
            model.predict(ROWS)
            METHODS[depth % 4].__code__
        return descend(depth - 1, padding) if depth else 0

    return lambda: [descend(count)]


WHAT = {
    "outside": outside,
    "inside": inside,
    "leaving": leaving,
    "failing": failing,
    "folded": folded,
    "caught": caught,
    "tracing": tracing,
    "deep": deep,
}

BATCH = WHAT[sys.argv[1]](int(sys.argv[2]))
serve(lambda: repr(BATCH()).encode(), TRUTH)
