"""A linear classifier, whose scores are a product of matrices that numpy leaves to a BLAS library.

Usage: target.py PREDICTS
"""

import pathlib
import sys

import numpy
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def main(predicts):
    features = numpy.random.default_rng(53).normal(size=(300, 8))
    # Three classes: the coefficients are a matrix.
    labels = numpy.digitize(features[:, 0] + features[:, 1], [-0.5, 0.5])
    model = LogisticRegression().fit(features, labels)
    truth = Truth()

    def batch():
        output = []
        for number in range(predicts):
            rows = features[number % 200 : number % 200 + 16]
            output.append(model.predict(rows).tobytes())
            truth.add("LogisticRegression.predict")
            truth.add("LogisticRegression.predict", "BLAS.dgemm")
        return b"".join(output)

    serve(batch, truth)


main(int(sys.argv[1]))
