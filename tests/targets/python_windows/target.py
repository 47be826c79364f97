"""A pipeline of three steps that predicts without end on two threads, now and then for longer than a window lasts.

Says `ready` when it predicts. Ends when its standard input is closed.
"""

import sys
import threading
import time

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler


class SlowScaler(StandardScaler):
    """Takes longer than a window where the first value is large."""

    def transform(self, X, copy=None):
        if X[0, 0] > 100:
            time.sleep(0.12)
        return super().transform(X)


def model():
    features = numpy.random.default_rng(11).normal(size=(300, 5))
    labels = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)
    steps = [("scaler", SlowScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())]
    return Pipeline(steps).fit(features, labels), features


def main():
    pipeline, features = model()
    large = numpy.full((1, 5), 1000.0)
    is_over = threading.Event()

    def predict():
        number = 0
        while not is_over.is_set():
            number += 1
            pipeline.predict(large if number % 12 == 0 else features[number % 280 :][:4])
            time.sleep(0.002)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    is_over.set()
    for thread in threads:
        thread.join()


main()
