"""A WSGI application with a pipeline of scikit-learn, as gunicorn's workers run it, and the same for ASGI, as uvicorn's do.

A request names a number; the answer is the number of the process and a digest of what the model predicts for it.
"""

import hashlib
import json
import os

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

FEATURES = numpy.random.default_rng(11).normal(size=(300, 5))
LABELS = (FEATURES[:, 0] + FEATURES[:, 1] * FEATURES[:, 2] > 0).astype(int)
STEPS = [("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())]
MODEL = Pipeline(STEPS).fit(FEATURES, LABELS)


def answer(number):
    output = MODEL.predict(FEATURES[number % 280 : number % 280 + 1 + number % 7])
    return json.dumps({"pid": os.getpid(), "digest": hashlib.sha256(output.tobytes()).hexdigest()}).encode()


def application(environment, start_response):
    body = answer(int(environment["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi_application(scope, receive, send):
    body = answer(int(scope["query_string"]))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
