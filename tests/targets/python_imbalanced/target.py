"""A pipeline of imbalanced-learn, which resamples when it is fitted and does not when it predicts.

Usage: target.py FITS PREDICTS. So many in each batch.
"""

import pathlib
import sys

import numpy
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def main(fits, predicts):
    features = numpy.random.default_rng(31).normal(size=(300, 5))
    labels = (features[:, 0] > 1).astype(int)
    sampler = RandomOverSampler(random_state=3)
    steps = [("scaler", StandardScaler()), ("sampler", sampler), ("clf", LogisticRegression())]
    pipeline = Pipeline(steps).fit(features, labels)
    truth = Truth()

    def batch():
        output = []
        for _ in range(fits):
            output.append(pipeline.fit(features, labels)[-1].coef_.tobytes())
            truth.add("Pipeline.fit")
            truth.add("Pipeline.fit", "StandardScaler.fit", step="scaler")
            truth.add("Pipeline.fit", "StandardScaler.transform", step="scaler")
            # The sampler's method calls the one that it overrides.
            truth.add("Pipeline.fit", "RandomOverSampler.fit_resample", step="sampler")
            truth.add("Pipeline.fit", "RandomOverSampler.fit_resample", "RandomOverSampler.fit_resample")
            truth.add("Pipeline.fit", "LogisticRegression.fit", step="clf")
        for number in range(predicts):
            output.append(pipeline.predict(features[number % 280 : number % 280 + 3]).tobytes())
            truth.add("Pipeline.predict")
            truth.add("Pipeline.predict", "StandardScaler.transform", step="scaler")
            truth.add("Pipeline.predict", "LogisticRegression.predict", step="clf")
        return b"".join(output)

    serve(batch, truth)


main(int(sys.argv[1]), int(sys.argv[2]))
