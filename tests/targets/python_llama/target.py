"""A small language model in llama-cpp-python, which writes, answers and embeds.

Usage: target.py CALLS
"""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve

import gguf_model
from llama_cpp import Llama

TOKENS = 3


class Model:
    """The calls of two models, and what they make inside."""

    def __init__(self, truth, path):
        settings = {"n_ctx": gguf_model.CONTEXT, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
        self.truth = truth
        self.writer = Llama(path, seed=5, **settings)
        self.embedder = Llama(path, embedding=True, **settings)

    def completed(self, answer, *path):
        """One evaluation for the prompt, which gives the first token, and one for each further token."""
        steps = answer["usage"]["completion_tokens"] + (answer["choices"][0]["finish_reason"] == "stop")
        self.truth.add(*path)
        self.truth.add(*path, "Llama.eval", count=steps)
        self.truth.add(*path, "Llama.eval", "Context.decode", count=steps)
        self.truth.add(*path, "Sampler.sample", count=steps)

    def complete(self, text):
        answer = self.writer.create_completion(text, max_tokens=TOKENS, temperature=0)
        self.completed(answer, "Llama.create_completion")
        self.truth.add("Llama.create_completion", "Vocab.tokenize")
        return answer["choices"][0]["text"]

    def call(self, text):
        answer = self.writer(text, max_tokens=TOKENS, temperature=0)
        self.truth.add("Llama.__call__")
        self.completed(answer, "Llama.__call__", "Llama.create_completion")
        self.truth.add("Llama.__call__", "Llama.create_completion", "Vocab.tokenize")
        return answer["choices"][0]["text"]

    def chat(self, text):
        messages = [{"role": "user", "content": text}]
        answer = self.writer.create_chat_completion(messages, max_tokens=TOKENS, temperature=0)
        self.truth.add("Llama.create_chat_completion")
        self.completed(answer, "Llama.create_chat_completion", "Llama.create_completion")
        # The prompt is made of the messages, and comes as tokens to what completes it.
        self.truth.add("Llama.create_chat_completion", "Vocab.tokenize")
        return answer["choices"][0]["message"]["content"]

    def embed(self, text):
        path = ["Llama.create_embedding", "Llama.embed"]
        self.truth.add(path[0])
        self.truth.add(*path)
        self.truth.add(*path, "Vocab.tokenize")
        self.truth.add(*path, "Context.decode")
        return [round(number, 3) for number in self.embedder.create_embedding(text)["data"][0]["embedding"][0]]


def main(calls):
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "model.gguf")
        gguf_model.write(path)
        truth = Truth()
        model = Model(truth, path)

    def batch():
        outputs = []
        for number in range(calls):
            text = "abcdefghij"[number % 7 :]
            outputs += [model.complete(text), model.call(text), model.chat(text), model.embed(text)]
        return repr(outputs).encode()

    serve(batch, truth)


main(int(sys.argv[1]))
