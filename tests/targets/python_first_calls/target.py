"""Fits and predicts straight after its imports, and ends.

Usage: target.py [search | linger], with a search on two processes of joblib's loky, or with an interpreter that takes three seconds to
end, its modules gone already.
"""

import sys
import time

import numpy
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

FEATURES = numpy.random.default_rng(7).normal(size=(200, 4))
LABELS = (FEATURES[:, 0] > 0).astype(int)


class Clipper(TransformerMixin, BaseEstimator):
    """A class of the script's own, made after all imports."""

    def fit(self, X, y=None):
        self.limit_ = numpy.abs(X).max()
        return self

    def transform(self, X):
        return numpy.clip(X, -self.limit_, self.limit_)


model = Pipeline([("clipper", Clipper()), ("scaler", StandardScaler()), ("clf", LogisticRegression())])
model.fit(FEATURES, LABELS)
for start in range(3):
    print(model.predict(FEATURES[start:][:5]))
if sys.argv[1:] == ["search"]:
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=4, n_jobs=2)
    print(search.fit(FEATURES, LABELS).best_params_)


class Lingering:
    def __del__(self, sleep=time.sleep):
        sleep(3)


if sys.argv[1:] == ["linger"]:
    # Another module's, so that it is there until the modules have gone.
    numpy.lingering = Lingering()
