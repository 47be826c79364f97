"""Trains a small XGBoost model and predicts with it, a batch of requests for each line on standard input."""

import sys

import numpy
import xgboost


def main(requests: int) -> None:
    random = numpy.random.default_rng(7)
    features = random.normal(size=(500, 6))
    labels = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3, "nthread": 2, "verbosity": 0},
        xgboost.DMatrix(features, label=labels),
        num_boost_round=10,
    )
    total = 0.0
    print("ready", flush=True)
    for _ in sys.stdin:
        for request in range(requests):
            rows = features[request : request + 16]
            # Odd requests predict in place, even ones through a DMatrix: two ways into the library.
            if request % 2:
                scores = booster.inplace_predict(rows)
            else:
                scores = booster.predict(xgboost.DMatrix(rows))
            total += float(scores.sum())
        print(f"sum {total:.6f}")
        print("ready", flush=True)


main(int(sys.argv[1]))
