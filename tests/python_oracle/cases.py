"""Models to compare the spans of, by name."""

import numpy
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

from house.estimators import Clipper, NearestMean

ROWS = 60
COLUMNS = 4


def features():
    return numpy.random.RandomState(5).normal(size=(ROWS, COLUMNS))


def labels(X):
    return (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


def targets(X):
    return numpy.column_stack([X[:, 0] - X[:, 1], X[:, 2] * 2, X.sum(axis=1)])


def pipeline():
    steps = [("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())]
    return Pipeline(steps), labels


def nested_pipeline():
    inner = Pipeline([("scaler", StandardScaler()), ("poly", PolynomialFeatures())])
    return Pipeline([("prepare", inner), ("range", MinMaxScaler()), ("clf", LogisticRegression())]), labels


def feature_union():
    union = FeatureUnion([("scaled", StandardScaler()), ("squares", PolynomialFeatures())])
    return Pipeline([("union", union), ("clf", LogisticRegression())]), labels


def column_transformer():
    columns = ColumnTransformer([("left", StandardScaler(), [0, 1]), ("right", MinMaxScaler(), [2, 3])])
    return Pipeline([("columns", columns), ("clf", LogisticRegression())]), labels


def random_forest():
    forest = RandomForestClassifier(n_estimators=5, random_state=0)
    return Pipeline([("scaler", StandardScaler()), ("forest", forest)]), labels


def random_forest_children():
    return RandomForestClassifier(n_estimators=5, random_state=0), labels


def multi_output():
    return MultiOutputRegressor(LinearRegression()), targets


def user_defined():
    return Pipeline([("clip", Clipper()), ("scaler", StandardScaler()), ("mean", NearestMean())]), labels


CASES = {
    "pipeline": pipeline,
    "nested_pipeline": nested_pipeline,
    "feature_union": feature_union,
    "column_transformer": column_transformer,
    "random_forest": random_forest,
    "random_forest_children": random_forest_children,
    "multi_output": multi_output,
    "user_defined": user_defined,
}
