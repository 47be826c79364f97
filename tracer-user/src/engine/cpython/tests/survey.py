"""Classes of the shapes that machine-learning libraries have; prints what a survey of this process is to find.

Nothing but the standard library: classes say in `__module__` where the real ones are. The shapes are those of
scikit-learn (0.24, 1.2, 1.9) and xgboost. After a line of input the model is replaced by another one.
"""
import collections
import functools
import gc
import json
import sys
import types
from abc import ABCMeta


class BaseEstimator:
    __module__ = "sklearn.base"


class AvailableIf:
    """A descriptor that keeps the method as `fn`."""

    def __init__(self, fn):
        self.fn = fn
        functools.update_wrapper(self, fn)

    def __get__(self, obj, owner=None):
        return types.MethodType(self.fn, obj) if obj is not None else self.fn


def wrap_output(function):
    @functools.wraps(function)
    def wrapped(self, X, *args, **kwargs):
        return function(self, X, *args, **kwargs)

    return wrapped


def keyword_only(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def plain(function):
    def fit(self, *args):
        return function(self, *args)

    return fit


class Composition(BaseEstimator, metaclass=ABCMeta):
    __module__ = "sklearn.utils.metaestimators"


class Pipeline(Composition):
    __module__ = "sklearn.pipeline"

    def __init__(self, steps):
        self.steps = steps

    def fit(self, X):
        return self

    @AvailableIf
    def predict(self, X):
        return X

    @property
    def transform(self):
        return self._transform

    def _transform(self, X):
        return X


class FeatureUnion(BaseEstimator):
    __module__ = "sklearn.pipeline"

    def __init__(self, transformer_list):
        self.transformer_list = transformer_list

    @wrap_output
    def transform(self, X):
        return X


class Forest(BaseEstimator):
    __module__ = "sklearn.ensemble._forest"

    def __init__(self, estimators_):
        self.estimators_ = estimators_

    @plain
    def fit(self, X):
        return self

    def predict(self, X):
        return (lambda: self)()


class Bunch(dict):
    pass


class Search(BaseEstimator):
    __module__ = "sklearn.model_selection._search"

    def __init__(self, best, named):
        self.best_estimator_ = best
        self.named_ = Bunch(named)

    def predict(self, X):
        return X


class Around:
    def __init__(self, model):
        self.model = model


class Calibrated(BaseEstimator):
    __module__ = "sklearn.calibration"

    def __init__(self, models):
        self.parts_ = [Around(model) for model in models]

    def predict(self, X):
        return X


class Bagging(BaseEstimator):
    __module__ = "sklearn.ensemble._bagging"

    def __init__(self, models):
        self.estimators_ = models

    def predict(self, X):
        return X


class Scaler(BaseEstimator):
    __module__ = "sklearn.preprocessing._data"

    def __init__(self, scale=1.0):
        self.scale = scale

    @wrap_output
    def transform(self, X):
        return X

    @wrap_output
    def inverse_transform(self, X):
        return X

    @staticmethod
    def fit(X):
        return X

    def predict(self, X):
        yield X


class Booster(BaseEstimator):
    __module__ = "xgboost.sklearn"

    def __init__(self, depth=3):
        self.depth = depth

    @keyword_only
    def fit(self, X, *, verbose=False):
        return self

    predict = functools.partialmethod(lambda self, depth, X: X, 2)
    transform = len


class SubPipeline(Pipeline):
    __module__ = "__main__"

    def predict(self, X):
        return super().predict(X)


class Excluded(BaseEstimator):
    def fit(self, X):
        return self


class Duck:
    def __init__(self):
        self.name = "duck"

    def transform(self, X):
        return X


class Unrelated:
    def fit(self, X):
        return self


class PriceModel:
    """No map names it."""

    def preprocess(self, X):
        return X

    def predict(self, X):
        return X

    async def infer(self, X):
        return X


class Cheap(PriceModel):
    def __call__(self, X):
        return self.predict(X)


class Nobody:
    """It has no objects."""

    def predict(self, X):
        return X


def make_local():
    class Local(BaseEstimator):
        def __init__(self):
            self.mean = 0.0

        @wrap_output
        def transform(self, X):
            return (lambda: self.mean)()

    return Local()


def make_model():
    inner = Pipeline([("local", make_local()), ("none", "passthrough"), ("duck", Duck())])
    union = FeatureUnion([("a", Scaler(2.0)), ("b", None), ("c", Scaler(3.0))])
    return Pipeline([("inner", inner), ("union", union), ("forest", Forest([Scaler(float(n)) for n in range(3)]))])


class App:
    pass


app = App()
app.state = App()
app.state.models = {"booster": Booster()}
model = make_model()
sub = SubPipeline((("only", Scaler(4.0)),))
search = Search(Booster(4), {"first": sub, "none": None})
ordered = Search(None, {})
ordered.named_ = collections.OrderedDict([("gone", Booster(6)), ("last", sub)])
ordered.named_["next"] = Duck()
del ordered.named_["gone"]
calibrated = Calibrated([Duck(), Duck()])
bagging = Bagging([Duck() for _ in range(17)])
excluded = Excluded()
prices = [PriceModel(), Cheap(), Cheap()]
temporary = iter([Scaler(5.0)])
for _ in range(1000):
    make_model()
gc.collect()


def code_of(function):
    return [id(function), id(function.__code__)]


def chain(function):
    found = [code_of(function)]
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
        found.append(code_of(function))
    return found


def pipeline_chains(cls):
    return {
        "fit": chain(Pipeline.fit),
        "predict": chain(vars(cls)["predict"].fn if cls is Pipeline else SubPipeline.predict),
    }


local = model.steps[0][1].steps[0][1].__class__
CHAINS = {
    Pipeline: pipeline_chains(Pipeline),
    SubPipeline: pipeline_chains(SubPipeline),
    FeatureUnion: {"transform": chain(FeatureUnion.transform)},
    Forest: {
        "fit": chain(Forest.fit) + [code_of(Forest.fit.__closure__[0].cell_contents)],
        "predict": chain(Forest.predict),
    },
    Scaler: {"transform": chain(Scaler.transform)},
    Search: {"predict": chain(Search.predict)},
    Calibrated: {"predict": chain(Calibrated.predict)},
    Bagging: {"predict": chain(Bagging.predict)},
    Booster: {"fit": chain(Booster.fit), "predict": chain(vars(Booster)["predict"].func)},
    Duck: {"transform": chain(Duck.transform)},
    local: {"transform": chain(local.transform)},
}


def instances(cls):
    return sum(type(found) is cls for found in gc.get_objects())


def members():
    inner, union, forest = (step for _, step in model.steps)
    yield from ((model, step, name) for name, step in model.steps)
    yield from ((inner, step, name) for name, step in inner.steps if name != "none")
    yield from ((union, step, name) for name, step in union.transformer_list if step)
    yield from ((forest, tree, None) for tree in forest.estimators_)
    yield from ((sub, step, name) for name, step in sub.steps)
    yield from ((calibrated, part.model, None) for part in calibrated.parts_)
    yield from ((bagging, part, None) for part in bagging.estimators_)
    yield (search, search.best_estimator_, "best_estimator_")
    yield (search, sub, "first")
    yield (ordered, sub, "last")
    yield (ordered, ordered.named_["next"], "next")


print(
    json.dumps(
        {
            "classes": [
                {
                    "address": id(cls),
                    "path": f"{cls.__module__}.{cls.__qualname__}",
                    "instances": instances(cls),
                    "chains": CHAINS.get(cls, {}),
                }
                for cls in [*CHAINS, Excluded]
            ],
            "members": [[id(container), id(child), name] for container, child, name in members()],
            "unasked": chain(Scaler.inverse_transform)[0],
        }
    ),
    flush=True,
)
for _ in sys.stdin:
    model = Pipeline([("other", Booster(5))])
    search = ordered = calibrated = bagging = None
