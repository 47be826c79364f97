"""Models of an application's own, which no symbol map names."""


class PriceModel:
    """Its `predict` calls another method of its own."""

    factor = 2

    def preprocess(self, values):
        return [value - 1 for value in values]

    def predict(self, values):
        return [self.factor * value for value in self.preprocess(values)]


class Cheap(PriceModel):
    """It has its methods from its base."""

    factor = 1


class Ranker:
    """It asks the other models."""

    def __init__(self, models):
        self.models = models

    def encode(self, values):
        return sorted(sum(model.predict(values)) for model in self.models)


class Later:
    """A coroutine is nothing that could be traced."""

    async def predict(self, values):
        return values
