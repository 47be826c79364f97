"""A classifier of a boosting library, behind its interface in the manner of scikit-learn.

Usage: target.py xgboost|lightgbm|catboost PREDICTS [--overriding]. With `--overriding` the truth is that of a tracer which sees
the methods of the class alone, and not those of its base that they call.
"""

import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def xgboost():
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1)


def lightgbm():
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=5, num_leaves=4, n_jobs=1, verbose=-1)


def catboost():
    from catboost import CatBoostClassifier

    return CatBoostClassifier(iterations=5, depth=2, thread_count=1, verbose=False, allow_writing_files=False)


# What the two libraries in C and C++ run below their classes.
XGBOOST = ["Booster.predict", "LearnerImpl.InplacePredict", "GBTree.InplacePredict", "CPUPredictor.InplacePredict"]
LIGHTGBM = ["Booster.predict"]


def calls(library, overriding):
    """The calls inside `predict` and inside `predict_proba`, each around the next."""
    if library == "xgboost":
        # Both call the method of the base, which for `predict` is one of the same name.
        below = ["XGBClassifier.predict", *XGBOOST]
        return ["XGBClassifier.predict", *below], ["XGBClassifier.predict_proba", *below]
    if library == "lightgbm":
        below = LIGHTGBM if overriding else ["LGBMClassifier.predict", *LIGHTGBM]
        probabilities = ["LGBMClassifier.predict_proba", *below]
        return ["LGBMClassifier.predict", *probabilities], probabilities
    return ["CatBoostClassifier.predict"], ["CatBoostClassifier.predict_proba"]


def main(library, predicts, *options):
    features = numpy.random.default_rng(41).normal(size=(300, 5)).astype(numpy.float32)
    labels = (features[:, 0] + features[:, 1] > 0).astype(int)
    model = {"xgboost": xgboost, "lightgbm": lightgbm, "catboost": catboost}[library]()
    model.fit(features, labels)
    truth = Truth()
    chains = calls(library, "--overriding" in options)

    def batch():
        output = []
        for number in range(predicts):
            rows = features[number % 280 : number % 280 + 3]
            output.append(model.predict(rows).tobytes())
            output.append(model.predict_proba(rows).tobytes())
            for chain in chains:
                for depth in range(len(chain)):
                    truth.add(*chain[: depth + 1])
        return b"".join(output)

    serve(batch, truth)


main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
