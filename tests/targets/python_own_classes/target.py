"""Calls of models in classes that no symbol map names.

Usage: target.py CALLS price|all. The truth is that of a tracer which was asked for `app.PriceModel` and its methods `predict` and
`preprocess`, or for all classes of the application.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from app import Cheap, Later, PriceModel, Ranker
from gate import Truth, serve


class Scorer:
    """The part around the models, in the program itself."""

    def __init__(self, ranker):
        self.ranker = ranker

    def __call__(self, values):
        return self.ranker.encode(values)[-1]


def main(calls, asked):
    scorer = Scorer(Ranker([PriceModel(), Cheap()]))
    later = Later()
    truth = Truth()

    def batch():
        output = [type(later).__name__]
        for number in range(calls):
            output.append(scorer([number, 2, 3]))
            outer = ["Scorer.__call__", "Ranker.encode"] if asked == "all" else []
            for depth in range(len(outer)):
                truth.add(*outer[: depth + 1])
            for name in ["PriceModel", "Cheap"]:
                truth.add(*outer, f"{name}.predict")
                if asked == "price":
                    truth.add(f"{name}.predict", f"{name}.preprocess")
        return repr(output).encode()

    serve(batch, truth)


main(int(sys.argv[1]), sys.argv[2])
