"""Predictions in two processes of joblib's loky, as `n_jobs=2` has them: started in the first batch, they predict in the later ones.

Usage: target.py COUNT, so many predictions of each task, two tasks in each batch.
"""

import pathlib
import sys

import joblib
import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
import loky_model
from gate import Truth, serve

COUNT = int(sys.argv[1])
FEATURES = numpy.random.default_rng(5).normal(size=(max(COUNT, 100), 4))
MODEL = Pipeline([("scaler", StandardScaler()), ("clf", LogisticRegression())]).fit(FEATURES, FEATURES[:, 0] > 0)
PARALLEL = joblib.Parallel(n_jobs=2, backend="loky")
truth = Truth()
has_begun = False


def batch():
    global has_begun
    if not has_begun:
        has_begun = True
        PARALLEL(joblib.delayed(loky_model.begin)(MODEL) for _ in range(2))
        return b""
    answers = PARALLEL(joblib.delayed(loky_model.predict)(FEATURES[:COUNT]) for _ in range(2))
    truth.add("Pipeline.predict", count=2 * COUNT)
    truth.add("Pipeline.predict", "StandardScaler.transform", count=2 * COUNT)
    truth.add("Pipeline.predict", "LogisticRegression.predict", count=2 * COUNT)
    return repr(answers).encode()


serve(batch, truth)
