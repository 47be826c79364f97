"""A union and a column transformer whose children run on threads of joblib's.

Usage: target.py TRANSFORMS
"""

import pathlib
import sys

import joblib
import numpy
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


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


main(int(sys.argv[1]))
