"""A process that knows nothing of models until its first batch: that one imports scikit-learn and trains a pipeline.

Usage: target.py PREDICTS [SECONDS]. PREDICTS in each later batch. With SECONDS: no batches, but predictions for so long, the
first right after the import.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve

TRUTH = Truth()
STATE = {}


def first():
    import numpy
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features = numpy.random.default_rng(11).normal(size=(300, 5))
    labels = (features[:, 0] > 0).astype(int)
    steps = [("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())]
    STATE["model"], STATE["features"] = Pipeline(steps).fit(features, labels), features
    return b""


def later(predicts):
    output = []
    for number in range(predicts):
        TRUTH.add("Pipeline.predict")
        TRUTH.add("Pipeline.predict", "StandardScaler.transform", step="scaler")
        TRUTH.add("Pipeline.predict", "PolynomialFeatures.transform", step="poly")
        TRUTH.add("Pipeline.predict", "LogisticRegression.predict", step="clf")
        output.append(STATE["model"].predict(STATE["features"][number % 280 :][:3]).tobytes())
    return b"".join(output)


if len(sys.argv) > 2:
    first()
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        later(1)
        time.sleep(0.005)
    sys.exit()
serve(lambda: later(int(sys.argv[1])) if STATE else first(), TRUTH)
