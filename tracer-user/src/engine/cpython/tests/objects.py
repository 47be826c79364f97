# Makes objects of every kind, prints what the reader should find at which address, one JSON document in one line, and
# waits until its standard input ends. With the argument `small` it leaves out what is large or not its own.
import collections
import functools
import json
import sys
import threading
import types

SMALL = sys.argv[1:] == ["small"]
kept = []
expected = []


def expect(kind, thing, **facts):
    kept.append(thing)
    expected.append(dict(facts, kind=kind, address=id(thing)))


def ids(things):
    return [id(thing) for thing in things]


# Strings.
class TextChild(str):
    pass


texts = [
    "", "a", "plain ascii", "x" * 300, "caf\u00e9", "\u00ff", "\u0100", "\u65e5\u672c\u8a9e", "\U0001f600 smile",
    "nul\0inside", "\udc80", TextChild("child"), TextChild("chi\u00e9ld"), TextChild("\U0001f600"), "e\u0301", "\r\n\t\x1b",
    "".join(["joined", " ", "\u00e9"]), sys.intern("interned_" + "name"),
]
for value in texts:
    expect("text", value, value=str(value))
if not SMALL:
    expect("text", "\u65e5" * 32768, value="\u65e5" * 32768)
    expect("too_large", "y" * 65537)
    expect("too_large", "\U0001f600" * 16385)

# Tuples and lists.
class TupleChild(tuple):
    pass


class ListChild(list):
    pass


shrunk = [object() for _ in range(1000)]
del shrunk[3:]
pair = collections.namedtuple("pair", "left right")(1, "two")
for value in [(), (1,), (1, "a", None), tuple(range(20 if SMALL else 5000)), TupleChild((1, 2)), pair]:
    expect("tuple", value, items=ids(value))
for value in [[], [1], list("abcdefgh"), list(range(20 if SMALL else 5000)), shrunk, ListChild([1, 2, 3])]:
    expect("list", value, items=ids(value))


# Dictionaries.
def entries(value):
    return [[id(key), id(item)] for key, item in dict.items(value)]


class DictChild(dict):
    pass


holes = {str(number): number for number in range(100)}
for number in range(0, 100, 3):
    del holes[str(number)]
emptied = {"a": 1, "b": 2}
emptied.clear()
big = {"key %d" % number: number for number in range(200 if SMALL else 70000)}
mixed = {"text": 1, 2: "number", (3, 4): None, None: 5, "more": 6}
became_general = {"a": 1, "b": 2}
became_general[7] = 8
for value in [{}, {"a": 1}, {1: "a"}, holes, emptied, big, mixed, became_general, DictChild(x=1, y=2),
              collections.OrderedDict(a=1, b=2), collections.defaultdict(list, a=1), dict.fromkeys(range(300)),
              {"key %d" % number: number for number in range(300)}, {TextChild("odd"): 1}]:
    expect("dict", value, entries=entries(value))


# Attributes of instances.
class Plain:
    def __init__(self, count=3):
        for number in range(count):
            setattr(self, "attribute_%d" % number, number)


class Child(Plain):
    pass


class Slotted:
    __slots__ = ("left",)


class SlottedWithDictionary(Slotted):
    __slots__ = ("right", "__dict__")


class OfTuple(tuple):
    pass


class OfBytes(bytes):
    pass


class OfList(list):
    pass


class OfDict(dict):
    pass


class OfError(ValueError):
    pass


class Weak:
    __slots__ = ("__weakref__", "__dict__")


def with_attributes(thing, **attributes):
    for name, value in attributes.items():
        setattr(thing, name, value)
    return thing


gone = Plain()
del gone.attribute_1
many = Plain(200)
materialised = Plain()
materialised.__dict__["later"] = "value"
replaced = Plain()
replaced.__dict__ = {"other": 1, "names": 2}
odd = Plain()
odd.__dict__[5] = "a number as name"
swapped = Plain()
swapped_view = swapped.__dict__
swapped_view.update({"n%d" % number: number for number in range(50)})
viewed = Plain()
viewed_dictionary = viewed.__dict__
error = OfError("text")
error.note = "kept"
reordered = Child.__new__(Child)
reordered.second, reordered.first = 2, 1
with_attributes_first = Child.__new__(Child)
with_attributes_first.first, with_attributes_first.second = 1, 2
for thing in [Plain(), Plain(0), Plain(31), Child(), gone, many, materialised, replaced, swapped, viewed, error,
              reordered, with_attributes_first,
              with_attributes(SlottedWithDictionary(), inside=1, left=2), with_attributes(OfTuple((1, 2, 3)), a=1),
              with_attributes(OfTuple(), a=1), with_attributes(OfBytes(b"12345"), b=2), with_attributes(OfList([1]), c=3),
              with_attributes(OfDict(k=1), d=4), with_attributes(Weak(), e=5), types.SimpleNamespace(f=6),
              functools.partial(print, "x"), sys, Plain]:
    if thing is Plain:
        continue
    expect("attributes", thing, attributes={name: id(value) for name, value in vars(thing).items()})
expect("attributes", odd, attributes={n: id(v) for n, v in vars(odd).items() if isinstance(n, str)})
for thing in [object(), 5, Slotted(), "text", None]:
    expect("attributes", thing, attributes={})
expect("dict", viewed_dictionary, entries=entries(viewed_dictionary))
expect("dict", swapped_view, entries=entries(swapped_view))


# Classes.
class Meta(type):
    pass


class WithMeta(metaclass=Meta):
    class Inner(Plain, Weak):
        pass


def make_class():
    class Local(WithMeta.Inner):
        pass
    return Local


renamed = type("a.b", (), {})
foreign = type("Foreign", (Plain,), {"__module__": "some.where", "__qualname__": "Some.Foreign"})
unicode_class = type("Kl\u00e4sse\u65e5", (), {})
no_module = type("NoModule", (), {"__module__": 5})
for value in [object, type, int, dict, Plain, Child, Meta, WithMeta, WithMeta.Inner, make_class(), renamed, foreign,
              unicode_class, OfError, collections.OrderedDict, collections.deque, functools.partial, types.FunctionType,
              types.SimpleNamespace, threading.Thread, type("N" * 900, (), {})]:
    expect("class", value, name=value.__name__, qualified_name=value.__qualname__, module=value.__module__,
           mro=ids(value.__mro__))
kept.append(no_module)
expect("class", no_module, name="NoModule", qualified_name="NoModule", module="", mro=ids(no_module.__mro__))


# Functions and code.
def plain_function(first, second, *others, named=1, **more):
    local = first
    return local


def decorated(function):
    @functools.wraps(function)
    def wrapped(self, *args, **kwargs):
        return function(self, *args, **kwargs)
    return wrapped


def only_varargs(*args, key=None, **kwargs):
    return args, key, kwargs


def captured_varargs(*args):
    return lambda: args


def no_arguments():
    return 1


class Methods:
    def method(self, value):
        doubled = value * 2
        return doubled

    @decorated
    def shared(self):
        return super().__init__()

    def captures_self(self, value):
        return lambda: (self, value)

    def captures_value(self, value):
        return lambda: value

    def generator(self):
        yield self

    async def coroutine(self):
        return self

    async def both(self):
        yield self

    @staticmethod
    def static(value):
        return value

    @classmethod
    def of_class(cls):
        return cls

    @property
    def attribute(self):
        return self

    partial = functools.partial(plain_function, 1)


deep = compile("def deep(self):\n    return lambda: lambda: self\n", "/odd path/\u65e5\u672c.py", "exec")
deep_functions = {}
exec(deep, deep_functions)
wide = "def wide(%s):\n    return [a0]\n" % ", ".join("a%d" % number for number in range(200))
exec(compile(wide, "wide.py", "exec"), deep_functions)
functions = [plain_function, decorated, only_varargs, captured_varargs, no_arguments, Methods.method, Methods.shared,
             Methods.shared.__wrapped__, Methods.captures_self, Methods.captures_value, Methods.generator,
             Methods.coroutine, Methods.both, Methods.static, deep_functions["deep"], deep_functions["wide"], lambda x: x]
if not SMALL:
    functions += [functools.wraps, threading.Thread.run, json.dumps]
for value in functions:
    code = value.__code__
    expect("function", value, code=id(code), name=value.__name__, qualified_name=value.__qualname__,
           module=value.__module__ or "", globals=id(value.__globals__),
           closure=id(value.__closure__) if value.__closure__ else 0)
    receiver = "local"
    if code.co_argcount == 0:
        captured = code.co_varnames[:1] and code.co_varnames[code.co_kwonlyargcount] in code.co_cellvars
        receiver = "first_of_tuple" if code.co_flags & 4 and not captured else "none"
    elif code.co_varnames[0] in code.co_cellvars:
        receiver = "cell"
    expect("code", code, name=code.co_name, qualified_name=getattr(code, "co_qualname", None), file=code.co_filename,
           line=code.co_firstlineno, flags=code.co_flags, argument_count=code.co_argcount,
           keyword_only_count=code.co_kwonlyargcount, locals=list(code.co_varnames), cells=list(code.co_cellvars),
           free=list(code.co_freevars), stack_size=code.co_stacksize, receiver=receiver)
instance = Methods()
bound = instance.method
expect("method", bound, function=id(Methods.method), receiver=id(instance))
cell = Methods.shared.__closure__[0]
expect("cell", cell, content=id(Methods.shared.__wrapped__))
for name in ["static", "of_class", "attribute", "partial"]:
    holder = Methods.__dict__[name]
    held = {"static": lambda: holder.__func__, "of_class": lambda: holder.__func__, "attribute": lambda: holder.fget,
            "partial": lambda: holder.func}[name]()
    expect("held", holder, callable=id(held))
expect("held", plain_function, callable=0)
for thing in [5, 1.5, None, instance, Plain, [], {}]:
    expect("not_function", thing)

# Threads and modules.
started = threading.Event()
go_on = threading.Event()


def wait():
    started.set()
    go_on.wait()


thread = threading.Thread(target=wait, daemon=True)
thread.start()
started.wait()


class ModuleChild(types.ModuleType):
    pass


sys.modules["no.module"] = Plain()
sys.modules["none"] = None
sys.modules["module.child"] = ModuleChild("module.child")
found_modules = {name: id(vars(module)) for name, module in sys.modules.items() if isinstance(module, types.ModuleType)}
types_found = {
    "class": type, "object": object, "module": types.ModuleType, "text": str, "bytes": bytes, "integer": int,
    "tuple": tuple, "list": list, "dict": dict, "set": set, "frozen_set": frozenset, "property": property,
    "static_method": staticmethod, "class_method": classmethod, "function": types.FunctionType,
    "code": types.CodeType, "method": types.MethodType, "cell": type(cell), "partial": functools.partial,
}
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "expected": expected,
    "modules": found_modules,
    "types": {name: id(value) for name, value in types_found.items()},
    "threads": [threading.main_thread().ident, thread.ident],
    "native_threads": [threading.main_thread().native_id, thread.native_id],
}), flush=True)
sys.stdin.read()
