"""A small model of a library that has a symbol map of its own.

Usage: target.py LIBRARY CALLS. The libraries are the functions below: each gives a function that predicts once and adds to the
truth.
"""

import logging
import os
import pathlib
import sys
import types

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve

FEATURES = numpy.random.default_rng(23).normal(size=(300, 4)).astype(numpy.float32)
LABELS = (FEATURES[:, 0] + 0.5 * FEATURES[:, 1] > 0.1).astype(int)
TEXTS = ["The forest is quiet.", "Berlin has many trees. They are old.", "Rain fell on the hills all day"]


def onnxruntime(truth):
    import onnxruntime
    from onnx_model import twice_above_zero

    session = onnxruntime.InferenceSession(twice_above_zero("x", 4), providers=["CPUExecutionProvider"])

    def predict(number):
        truth.add("InferenceSession.run")
        return session.run(None, {"x": FEATURES[number : number + 3]})[0]

    return predict


def statsmodels(truth):
    import statsmodels.api

    results = statsmodels.api.Logit(LABELS, FEATURES).fit(disp=0)

    def predict(number):
        truth.add("LogitResults.predict")
        truth.add("LogitResults.predict", "Logit.predict", step="model")
        return results.predict(FEATURES[number : number + 3])

    return predict


def statsmodels_fits(truth):
    import statsmodels.api

    model = statsmodels.api.OLS(FEATURES[:, 3], FEATURES[:, :3])

    def fit(number):
        truth.add("OLS.fit")
        return model.fit().params

    return fit


def prophet(truth):
    logging.disable(logging.CRITICAL)
    import pandas
    from prophet import Prophet

    table = pandas.DataFrame({"ds": pandas.date_range("2024-01-01", periods=60), "y": numpy.arange(60.0)})
    seasons = dict.fromkeys(["yearly_seasonality", "weekly_seasonality", "daily_seasonality"], False)
    model = Prophet(uncertainty_samples=0, **seasons).fit(table)

    def predict(number):
        truth.add("Prophet.predict")
        return model.predict(table.iloc[number % 50 :])["yhat"].to_numpy()

    return predict


def keras(truth):
    os.environ["KERAS_BACKEND"] = "numpy"
    # This backend takes convolutions and Fourier transforms from jax, which has 300 MB. Nothing here convolves.
    for name in ["jax", "jax.lax", "jax.monitoring", "keras.src.backend.jax", "keras.src.backend.jax.math"]:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["jax"].lax, sys.modules["jax"].monitoring = sys.modules["jax.lax"], sys.modules["jax.monitoring"]
    sys.modules["jax.monitoring"].record_scalar = None
    sys.modules["keras.src.backend.jax.math"].fft = sys.modules["keras.src.backend.jax.math"].fft2 = None
    import keras

    keras.utils.set_random_seed(5)
    layers = [keras.layers.Dense(3, activation="relu", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.layers.Input((4,)), *layers])

    def predict(number):
        truth.add("Sequential.predict")
        truth.add("Sequential.predict", "Sequential.__call__")
        truth.add("Sequential.predict", "Sequential.__call__", "Dense.__call__", count=2)
        return model.predict(FEATURES[number : number + 3], verbose=0)

    return predict


def spacy(truth):
    import spacy

    class Counter:
        """A component of one's own, in a class that no map names."""

        def __call__(self, document):
            document.user_data["tokens"] = len(document)
            return document

    spacy.Language.factory("counter", func=lambda nlp, name: Counter())
    pipeline = spacy.blank("en")
    spacy.util.fix_random_seed(5)
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("textcat").add_label("nature")
    pipeline.get_pipe("textcat").add_label("other")
    pipeline.initialize()
    pipeline.add_pipe("entity_ruler", name="cities").add_patterns([{"label": "CITY", "pattern": "Berlin"}])
    pipeline.add_pipe("counter")

    def predict(number):
        truth.add("English.__call__")
        truth.add("English.__call__", "Sentencizer.predict")
        truth.add("English.__call__", "TextCategorizer.predict", step="textcat")
        truth.add("English.__call__", "EntityRuler.__call__", step="cities")
        truth.add("English.__call__", "Counter.__call__", step="counter")
        document = pipeline(TEXTS[number % len(TEXTS)])
        # How the classifier rounds depends on the processor.
        cities = [entity.text for entity in document.ents]
        return repr((cities, len(list(document.sents)), sorted(document.cats), document.user_data)).encode()

    return predict


def skops(truth):
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    trained = Pipeline([("scaler", StandardScaler()), ("clf", LogisticRegression())]).fit(FEATURES, LABELS)
    model = skops.io.loads(skops.io.dumps(trained), trusted=[])

    def predict(number):
        truth.add("Pipeline.predict")
        truth.add("Pipeline.predict", "StandardScaler.transform", step="scaler")
        truth.add("Pipeline.predict", "LogisticRegression.predict", step="clf")
        return model.predict(FEATURES[number : number + 3])

    return predict


def tokenizers(truth):
    import tokenizers

    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=300, show_progress=False)

    def predict(number):
        truth.add("ByteLevelBPETokenizer.encode")
        truth.add("ByteLevelBPETokenizer.decode")
        tokens = tokenizer.encode(TEXTS[number % len(TEXTS)]).ids
        return repr((tokens, tokenizer.decode(tokens))).encode()

    return predict


LIBRARIES = [onnxruntime, statsmodels, statsmodels_fits, prophet, keras, spacy, skops, tokenizers]


def main(library, calls):
    truth = Truth()
    (make,) = [make for make in LIBRARIES if make.__name__ == library]
    predict = make(truth)

    def batch():
        outputs = [predict(number) for number in range(calls)]
        return b"".join(output if isinstance(output, bytes) else output.tobytes() for output in outputs)

    serve(batch, truth)


main(sys.argv[1], int(sys.argv[2]))
