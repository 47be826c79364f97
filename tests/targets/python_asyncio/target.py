"""A pipeline asked by coroutines, which take turns on one thread, and through `asyncio.to_thread`.

Usage: target.py TASKS. Each task predicts three times on the loop's thread, letting others go between, and once elsewhere.
"""

import asyncio
import pathlib
import sys

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve


def main(tasks):
    features = numpy.random.default_rng(41).normal(size=(200, 4))
    labels = (features[:, 0] + features[:, 1] > 0).astype(int)
    pipeline = Pipeline([("scaler", StandardScaler()), ("clf", LogisticRegression())]).fit(features, labels)
    truth = Truth()

    def predict(rows):
        truth.add("Pipeline.predict")
        truth.add("Pipeline.predict", "StandardScaler.transform", step="scaler")
        truth.add("Pipeline.predict", "LogisticRegression.predict", step="clf")
        return pipeline.predict(rows).tobytes()

    async def task(number):
        rows = features[number % 190 : number % 190 + 6]
        output = []
        for _ in range(3):
            output.append(predict(rows))
            await asyncio.sleep(0)
        output.append(await asyncio.to_thread(predict, rows))
        return b"".join(output)

    async def all_tasks():
        return b"".join(await asyncio.gather(*(task(number) for number in range(tasks))))

    serve(lambda: asyncio.run(all_tasks()), truth)


main(int(sys.argv[1]))
