"""A union and a column transformer whose children run on threads of joblib's.

Usage: target.py TRANSFORMS [--together]. With `--together` two threads transform at the same time, with one model.
"""

import concurrent.futures
import pathlib
import sys
import threading

import joblib
import numpy
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def together(transforms):
    """Each thread begins its transform when the other one does."""
    features = numpy.random.default_rng(23).normal(size=(20000, 4))
    union = FeatureUnion([("scaled", StandardScaler()), ("squares", PolynomialFeatures(3))], n_jobs=2)
    truth = Truth()
    both = threading.Barrier(2)

    def share(thread):
        output = []
        with joblib.parallel_backend("threading"):
            for _ in range(transforms):
                both.wait()
                output.append(union.transform(features).sum())
        return output

    def batch():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return repr(list(pool.map(share, range(2)))).encode()

    with joblib.parallel_backend("threading"):
        union.fit(features)
    serve(batch, truth)


def main(transforms):
    features = numpy.random.default_rng(23).normal(size=(200, 4))
    union = FeatureUnion([("scaled", StandardScaler()), ("squares", PolynomialFeatures())], n_jobs=2)
    columns = ColumnTransformer([("left", StandardScaler(), [0, 1]), ("right", MinMaxScaler(), [2, 3])], n_jobs=2)
    pipeline = Pipeline([("union", union), ("columns", columns)])
    truth = Truth()

    def batch():
        output = []
        with joblib.parallel_backend("threading"):
            for number in range(transforms):
                rows = features[number % 150 : number % 150 + 20]
                output.append(pipeline.transform(rows).tobytes())
                outer, first, second = "Pipeline.transform", "FeatureUnion.transform", "ColumnTransformer.transform"
                truth.add(outer)
                truth.add(outer, first, step="union")
                truth.add(outer, first, "StandardScaler.transform", step="scaled")
                truth.add(outer, first, "PolynomialFeatures.transform", step="squares")
                truth.add(outer, second, step="columns")
                truth.add(outer, second, "StandardScaler.transform", step="left")
                truth.add(outer, second, "MinMaxScaler.transform", step="right")
        return b"".join(output)

    with joblib.parallel_backend("threading"):
        pipeline.fit(features)
    serve(batch, truth)


(together if "--together" in sys.argv else main)(int(sys.argv[1]))
