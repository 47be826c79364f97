"""Predicts until it is told to end: a target that needs few modules, for machines that have nothing else."""

import signal
import sys
import time


class Estimator:
    """What the map asks for."""


class Scaler(Estimator):
    def transform(self, rows):
        return [row * 0.5 - 1.0 for row in rows]


class Model(Estimator):
    def __init__(self):
        self.scaler = Scaler()

    def predict(self, rows):
        return [int(row > 0.0) for row in self.scaler.transform(rows)]


ENDED = []
signal.signal(signal.SIGTERM, lambda number, frame: ENDED.append(number))
MODEL = Model()
calls = positive = 0
print("ready", flush=True)
while not ENDED:
    positive += sum(MODEL.predict([calls % 5, 1, 4]))
    calls += 1
    time.sleep(0.005)
print(f"calls={calls} positive={positive}")
sys.exit(0 if calls else 1)
