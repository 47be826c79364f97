"""An HTTP model server: FastAPI on uvicorn, with models trained when it starts: boosters of XGBoost and LightGBM, and
pipelines of scikit-learn that end in a classifier of its own, of XGBoost's and of LightGBM's.

Usage: server.py PORT. `GET /health` answers as soon as it is ready.
"""

import sys

import fastapi
import lightgbm
import numpy
import uvicorn
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

COLUMNS = 8


def examples() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(3)
    features = random.normal(size=(2000, COLUMNS))
    return features, (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)


def boosters() -> tuple[xgboost.Booster, lightgbm.Booster]:
    features, labels = examples()
    ours = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "nthread": 2, "verbosity": 0},
        xgboost.DMatrix(features, label=labels),
        num_boost_round=50,
    )
    theirs = lightgbm.train(
        {"objective": "binary", "num_leaves": 15, "num_threads": 2, "verbose": -1},
        lightgbm.Dataset(features, label=labels),
        num_boost_round=50,
    )
    return ours, theirs


def pipelines() -> dict[str, Pipeline]:
    classifiers = {
        "pipeline": LogisticRegression(max_iter=1000),
        "pipeline-xgboost": xgboost.XGBClassifier(n_estimators=20, max_depth=3, n_jobs=2, verbosity=0),
        "pipeline-lightgbm": lightgbm.LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=2, verbose=-1),
    }
    features, labels = examples()
    made = {}
    for name, classifier in classifiers.items():
        steps = [("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", classifier)]
        made[name] = Pipeline(steps).fit(features, labels)
    return made


XGBOOST, LIGHTGBM = boosters()
PIPELINES = pipelines()
application = fastapi.FastAPI()


@application.post("/predict/{model}")
def predict(model: str, rows: list[list[float]]) -> dict[str, list[float]]:
    matrix = numpy.asarray(rows, dtype=numpy.float64)
    if matrix.ndim != 2 or matrix.shape[1] != COLUMNS:
        raise fastapi.HTTPException(422, f"each row needs {COLUMNS} numbers")
    if model == "xgboost":
        scores = XGBOOST.inplace_predict(matrix)
    elif model == "lightgbm":
        scores = LIGHTGBM.predict(matrix)
    elif model in PIPELINES:
        scores = PIPELINES[model].predict(matrix)
    else:
        raise fastapi.HTTPException(404, f"no model is called {model}")
    return {"scores": [float(score) for score in scores]}


@application.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
