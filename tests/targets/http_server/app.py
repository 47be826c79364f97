"""A server of many kinds of answers, for ASGI (FastAPI) and WSGI, each with models that are told apart by their classes.

`/predict/N` predicts with the model that has the number N modulo 16, `/length` answers with the length of what was posted, `/none/N` with nothing (204), `/broken/N` with 500,
`/stream/N` with chunks; anything else is not found.
"""

import numpy
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

FEATURES = numpy.random.default_rng(11).normal(size=(300, 5))
LABELS = (FEATURES[:, 0] > 0).astype(int)
MODELS = [
    type(f"Pipeline{number:02}", (Pipeline,), {})([("scaler", StandardScaler()), ("clf", LogisticRegression())])
    for number in range(16)
]
for model in MODELS:
    model.fit(FEATURES, LABELS)

application = FastAPI()


def predict(number: int) -> str:
    return str(MODELS[number % 16].predict(FEATURES[number % 300 : number % 300 + 1])[0])


@application.get("/predict/{number}")
def of_threads(number: int):
    return Response(predict(number))


@application.post("/length/{number}")
async def length(number: int, request: Request):
    return Response(str(len(await request.body())))


@application.get("/none/{number}")
async def none(number: int):
    return Response(status_code=204)


@application.get("/broken/{number}")
async def broken(number: int):
    return Response("no", status_code=500)


@application.get("/stream/{number}")
async def stream(number: int):
    async def parts():
        for part in range(5):
            yield f"{number}.{part}" * 100

    return StreamingResponse(parts())


@application.head("/predict/{number}")
async def head(number: int):
    return Response("not sent")


def wsgi(environment, start_response):
    _, kind, number = environment["PATH_INFO"].split("/")
    if kind == "predict":
        status, body = "200 OK", [predict(int(number)).encode()]
    elif kind == "length":
        status, body = "200 OK", [str(len(environment["wsgi.input"].read())).encode()]
    elif kind == "none":
        status, body = "204 No Content", []
    elif kind == "broken":
        status, body = "500 Internal Server Error", [b"no"]
    elif kind == "stream":
        # Without a length: chunks.
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (f"{number}.{part}".encode() * 100 for part in range(5))
    else:
        status, body = "404 Not Found", [b"what?"]
    length = len(b"".join(body))
    start_response(status, [("Content-Type", "text/plain")] + ([("Content-Length", str(length))] if body else []))
    return [] if environment["REQUEST_METHOD"] == "HEAD" else body
