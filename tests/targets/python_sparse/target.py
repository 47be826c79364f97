"""Models of a busy process, and a known number of predictions by each way of calling one.

Usage: target.py. Says `ready`. Predicts without end until a line comes on its standard input, and then so many times in each way; says of
each its name, the nanoseconds of the clock when it began and ended, and the number of predictions. Ends when its standard input is closed.
"""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

PREDICTIONS = 100

features = numpy.random.default_rng(11).normal(size=(400, 6))
labels = (features[:, 0] > 0).astype(int)
columns = ColumnTransformer([("left", StandardScaler(), [0, 1, 2]), ("right", RobustScaler(), [3, 4, 5])])
linear = Pipeline([("scaler", StandardScaler()), ("poly", PolynomialFeatures()), ("clf", LogisticRegression())])
forest = Pipeline([("minmax", MinMaxScaler()), ("columns", columns), ("forest", RandomForestClassifier(5))])
for model in linear, forest:
    model.fit(features, labels)
few = features[:5]


def in_a_loop(model):
    for _ in range(PREDICTIONS):
        model.predict(few)


def by_c_code(model):
    list(map(model.predict, [few] * PREDICTIONS))


def in_new_threads(model):
    for _ in range(PREDICTIONS):
        thread = threading.Thread(target=model.predict, args=(few,))
        thread.start()
        thread.join()


def in_a_pool(model):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(model.predict, [few] * PREDICTIONS))


def in_coroutines(model):
    async def one():
        await asyncio.sleep(0)
        return model.predict(few)

    async def all_of_them():
        await asyncio.gather(*(one() for _ in range(PREDICTIONS)))

    asyncio.run(all_of_them())


def main():
    is_over = threading.Event()

    def predict():
        while not is_over.is_set():
            linear.predict(few)
            forest.predict(few)

    busy = threading.Thread(target=predict)
    busy.start()
    print("ready", flush=True)
    sys.stdin.readline()
    is_over.set()
    busy.join()
    for way in in_a_loop, by_c_code, in_new_threads, in_a_pool, in_coroutines:
        time.sleep(0.05)
        began = time.time_ns()
        way(linear)
        way(forest)
        print(way.__name__, began, time.time_ns(), PREDICTIONS, flush=True)
    print("counted", flush=True)
    sys.stdin.read()


main()
