"""Estimators that a user has written."""

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin


class Clipper(BaseEstimator, TransformerMixin):
    """Clips each column to the range that most of its values have."""

    def __init__(self, tail=0.05):
        self.tail = tail

    def fit(self, X, y=None):
        self.low_ = numpy.quantile(X, self.tail, axis=0)
        self.high_ = numpy.quantile(X, 1 - self.tail, axis=0)
        return self

    def transform(self, X):
        return numpy.clip(X, self.low_, self.high_)


class NearestMean(BaseEstimator, ClassifierMixin):
    """The class with the nearest mean; `predict` goes through `predict_proba`."""

    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        self.means_ = numpy.stack([X[y == label].mean(axis=0) for label in self.classes_])
        return self

    def predict_proba(self, X):
        distances = numpy.linalg.norm(X[:, None, :] - self.means_[None, :, :], axis=2)
        closeness = numpy.exp(-distances)
        return closeness / closeness.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
