"""A forest whose trees are walked by code that Cython has made, on the calling thread or on joblib's.

Usage: target.py PREDICTS JOBS trees|walks. The truth is that of a map which asks for each tree and the walk through it, or
for the walks alone.
"""

import pathlib
import sys

import numpy
from sklearn.ensemble import RandomForestClassifier

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve

TREES = 3


def main(predicts, jobs, asked):
    features = numpy.random.default_rng(59).normal(size=(300, 5))
    labels = (features[:, 0] > features[:, 1]).astype(int)
    forest = RandomForestClassifier(TREES, max_depth=3, n_jobs=jobs, random_state=5).fit(features, labels)
    truth = Truth()

    def batch():
        output = []
        for number in range(predicts):
            output.append(forest.predict(features[number % 200 : number % 200 + 16]).tobytes())
            outer = ["RandomForestClassifier.predict", "RandomForestClassifier.predict_proba"]
            truth.add(outer[0])
            truth.add(*outer)
            if asked == "trees":
                truth.add(*outer, "DecisionTreeClassifier.predict_proba", count=TREES)
                truth.add(*outer, "DecisionTreeClassifier.predict_proba", "Tree.predict", count=TREES)
            elif jobs > 1:
                truth.add("Tree.predict", count=TREES)
        return b"".join(output)

    serve(batch, truth)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
