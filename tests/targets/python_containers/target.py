"""Models that contain models, each around a pipeline, which predict in turn.

Usage: target.py PREDICTS [KIND...]. PREDICTS of each kind in each batch; without kinds all of them but `many`, whose class is
not looked into because of it.
"""

import argparse
import pathlib
import sys
import warnings

import numpy
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import RFE, RFECV, SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve

FEATURES = numpy.random.default_rng(3).normal(size=(90, 4))
LABEL = (FEATURES[:, 0] + FEATURES[:, 1] * FEATURES[:, 2] > 0).astype(int)
LABELS = numpy.column_stack([LABEL, FEATURES[:, 1] > 0]).astype(int)
CLASSES = numpy.digitize(FEATURES[:, 0], [-0.5, 0.5])
TARGET = FEATURES[:, 0] * 3 + 1


def classifier():
    return Pipeline([("scale", StandardScaler()), ("clf", LogisticRegression())])


def regressor():
    return Pipeline([("scale", StandardScaler()), ("reg", LinearRegression())])


def importance(pipeline):
    return pipeline[-1].coef_


def columns():
    parts = [("left", Pipeline([("scale", StandardScaler())]), [0, 1]), ("right", MinMaxScaler(), [2, 3])]
    return Pipeline([("columns", ColumnTransformer(parts)), ("clf", LogisticRegression())])


def union():
    parts = [("left", Pipeline([("scale", StandardScaler())])), ("right", MinMaxScaler())]
    return Pipeline([("union", FeatureUnion(parts)), ("clf", LogisticRegression())])


def selected():
    selector = SelectFromModel(classifier(), importance_getter=importance)
    return Pipeline([("select", selector), ("clf", LogisticRegression())])


def frozen():
    fitted = classifier().fit(FEATURES, LABEL)
    return Pipeline([("range", MinMaxScaler()), ("frozen", FrozenEstimator(fitted))])


def stacking():
    return StackingClassifier([("a", classifier()), ("b", classifier())], cv=2)


TWO = [("a", classifier()), ("b", classifier())]
REGRESSORS = [("a", regressor()), ("b", regressor())]
PROBABILITY = """
Pipeline.predict_proba
  StandardScaler.transform (scale)
  LogisticRegression.predict_proba (clf)"""
PREDICTION = """
Pipeline.predict
  StandardScaler.transform (scale)
  LogisticRegression.predict (clf)"""
# Its `predict` calls the one that it overrides.
REGRESSION = """
Pipeline.predict
  StandardScaler.transform (scale)
  LinearRegression.predict (reg)
    LinearRegression.predict (reg)"""
# It asks for `decision_function`, which the map does not name.
CALIBRATION = """
StandardScaler.transform (scale)
_SigmoidCalibration.predict"""


def inside(head, *parts):
    """A tree: a line and those below it."""
    lines = [line for part in parts for line in part.strip("\n").split("\n")]
    return "\n".join([head, *("  " + line for line in lines)])


def step(tree, name):
    """The tree of a call on an object that its container has a name for."""
    head, _, rest = tree.strip("\n").partition("\n")
    return f"{head} ({name})\n{rest}" if rest else f"{head} ({name})"


# Each kind: how it is made, what it is fitted to, and its tree.
KINDS = {
    "tuned": (
        lambda: TunedThresholdClassifierCV(classifier(), cv=2),
        LABEL,
        inside("TunedThresholdClassifierCV.predict", step(PROBABILITY, "estimator_")),
    ),
    "fixed": (
        lambda: FixedThresholdClassifier(classifier()),
        LABEL,
        inside("FixedThresholdClassifier.predict", step(PROBABILITY, "estimator_")),
    ),
    "calibrated": (
        lambda: CalibratedClassifierCV(classifier(), cv=2),
        LABEL,
        inside(
            "CalibratedClassifierCV.predict",
            inside("CalibratedClassifierCV.predict_proba", CALIBRATION, CALIBRATION),
        ),
    ),
    "frozen": (
        frozen,
        LABEL,
        inside("Pipeline.predict", "MinMaxScaler.transform (range)", step(PREDICTION, "estimator")),
    ),
    "rfe": (
        lambda: RFE(classifier(), importance_getter=importance, n_features_to_select=2),
        LABEL,
        inside("RFE.predict", "RFE.transform", step(PREDICTION, "estimator_")),
    ),
    "rfecv": (
        lambda: RFECV(classifier(), importance_getter=importance, cv=2),
        LABEL,
        inside("RFECV.predict", "RFECV.transform", step(PREDICTION, "estimator_")),
    ),
    "select": (
        selected,
        LABEL,
        inside("Pipeline.predict", "SelectFromModel.transform (select)", "LogisticRegression.predict (clf)"),
    ),
    "voting": (
        lambda: VotingClassifier(TWO),
        LABEL,
        inside("VotingClassifier.predict", step(PREDICTION, "a"), step(PREDICTION, "b")),
    ),
    "soft": (
        lambda: VotingClassifier(TWO, voting="soft"),
        LABEL,
        inside(
            "VotingClassifier.predict",
            inside("VotingClassifier.predict_proba", step(PROBABILITY, "a"), step(PROBABILITY, "b")),
        ),
    ),
    "mean": (
        lambda: VotingRegressor(REGRESSORS),
        TARGET,
        inside("VotingRegressor.predict", step(REGRESSION, "a"), step(REGRESSION, "b")),
    ),
    "stacking": (
        stacking,
        LABEL,
        inside(
            "StackingClassifier.predict",
            inside(
                "StackingClassifier.predict",
                inside("StackingClassifier.transform", step(PROBABILITY, "a"), step(PROBABILITY, "b")),
                "LogisticRegression.predict (final_estimator_)",
            ),
        ),
    ),
    "bagging": (
        lambda: BaggingClassifier(classifier(), n_estimators=2, random_state=0),
        LABEL,
        inside("BaggingClassifier.predict", inside("BaggingClassifier.predict_proba", PROBABILITY, PROBABILITY)),
    ),
    "bagging_regressor": (
        lambda: BaggingRegressor(regressor(), n_estimators=2, random_state=0),
        TARGET,
        inside("BaggingRegressor.predict", REGRESSION, REGRESSION),
    ),
    # More than a few: one span.
    "many": (
        lambda: BaggingClassifier(LogisticRegression(), n_estimators=20, random_state=0),
        LABEL,
        inside("BaggingClassifier.predict", "BaggingClassifier.predict_proba"),
    ),
    "outputs": (
        lambda: MultiOutputClassifier(classifier()),
        LABELS,
        inside("MultiOutputClassifier.predict", PREDICTION, PREDICTION),
    ),
    "output_regressor": (
        lambda: MultiOutputRegressor(regressor()),
        LABELS,
        inside("MultiOutputRegressor.predict", REGRESSION, REGRESSION),
    ),
    "regressor_chain": (
        lambda: RegressorChain(regressor()),
        LABELS,
        inside("RegressorChain.predict", *[REGRESSION] * 4),
    ),
    "one_to_rest": (
        lambda: OneVsRestClassifier(classifier()),
        CLASSES,
        inside("OneVsRestClassifier.predict", *["StandardScaler.transform (scale)"] * 3),
    ),
    "one_to_one": (
        lambda: OneVsOneClassifier(classifier()),
        CLASSES,
        inside("OneVsOneClassifier.predict", *[PREDICTION] * 3, *["StandardScaler.transform (scale)"] * 3),
    ),
    # One of the three columns of its code is the same for all classes.
    "code": (
        lambda: OutputCodeClassifier(classifier(), code_size=1, random_state=0),
        CLASSES,
        inside("OutputCodeClassifier.predict", *["StandardScaler.transform (scale)"] * 2),
    ),
    "target": (
        lambda: TransformedTargetRegressor(regressor(), transformer=StandardScaler()),
        TARGET,
        inside("TransformedTargetRegressor.predict", step(REGRESSION, "regressor_")),
    ),
    "columns": (
        columns,
        LABEL,
        inside(
            "Pipeline.predict",
            inside(
                "ColumnTransformer.transform (columns)",
                inside("Pipeline.transform (left)", "StandardScaler.transform (scale)"),
                "MinMaxScaler.transform (right)",
            ),
            "LogisticRegression.predict (clf)",
        ),
    ),
    "union": (
        union,
        LABEL,
        inside(
            "Pipeline.predict",
            inside(
                "FeatureUnion.transform (union)",
                inside("Pipeline.transform (left)", "StandardScaler.transform (scale)"),
                "MinMaxScaler.transform (right)",
            ),
            "LogisticRegression.predict (clf)",
        ),
    ),
    "search": (
        lambda: GridSearchCV(classifier(), {"clf__C": [1, 2]}, cv=2),
        LABEL,
        inside("GridSearchCV.predict", step(PREDICTION, "best_estimator_")),
    ),
    "forest": (
        lambda: RandomForestClassifier(n_estimators=5, random_state=0),
        LABEL,
        inside("RandomForestClassifier.predict", "RandomForestClassifier.predict_proba"),
    ),
}


def tell(truth, tree):
    """Adds the calls of a tree."""
    path = []
    for line in tree.split("\n"):
        name, _, step = line.strip().partition(" (")
        del path[(len(line) - len(line.lstrip())) // 2 :]
        path.append(name)
        truth.add(*path, step=step.rstrip(")") or None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predicts", type=int)
    parser.add_argument("kinds", nargs="*", default=[kind for kind in KINDS if kind != "many"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    models = [(KINDS[kind][0]().fit(FEATURES, KINDS[kind][1]), KINDS[kind][2]) for kind in arguments.kinds]
    truth = Truth()

    def batch():
        output = []
        for number in range(arguments.predicts):
            for model, tree in models:
                output.append(numpy.asarray(model.predict(FEATURES[number % 80 :][:5])).tobytes())
                tell(truth, tree)
        return b"".join(output)

    serve(batch, truth)


main()
