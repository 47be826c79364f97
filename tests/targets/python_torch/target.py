"""Small networks of the real PyTorch, bare and inside transformers and sentence-transformers.

Usage: target.py torch|transformers|sentence_transformers CALLS
"""

import logging
import os
import pathlib
import sys
import tempfile
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import torch

torch.manual_seed(7)
torch.set_num_threads(1)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]


class Calls:
    """Counts the calls below one another."""

    def __init__(self, truth):
        self.truth, self.path = truth, ()

    def below(self, name, step=None):
        inner = Calls(self.truth)
        inner.path = (*self.path, name)
        self.truth.add(*inner.path, step=step)
        return inner

    def module(self, name, module):
        """A module that calls each of its own once, in any order. A list of modules is never called itself."""
        is_list = isinstance(module, torch.nn.ModuleList)
        inner = self if is_list else self.below(f"{type(module).__name__}.__call__", name)
        for name, child in module.named_children():
            inner.module(name, child)


def torch_alone(truth):
    layers = torch.nn
    body = layers.Sequential(layers.Linear(4, 3), layers.ReLU(), layers.Sequential(layers.Linear(3, 2)))
    model = layers.Sequential()
    model.add_module("body", body)
    model.add_module("head", layers.Linear(2, 1))
    model.eval()
    calls = Calls(truth)

    def predict(number):
        calls.module(None, model)
        with torch.no_grad():
            return model(torch.full((2, 4), number / 8)).numpy().tobytes()

    return predict


def tokenizer():
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    words = tokenizers.models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]")
    inner = tokenizers.Tokenizer(words)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=16, **special)


def transformers(truth):
    from transformers import GPT2Config, GPT2LMHeadModel, TextGenerationPipeline

    sizes = {"vocab_size": len(WORDS), "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=2, eos_token_id=3, **sizes)).eval()
    pipeline = TextGenerationPipeline(model=model, tokenizer=tokenizer())
    tokens = 2

    def predict(number):
        outer = Calls(truth).below("TextGenerationPipeline.__call__")
        outer.below("PreTrainedTokenizerFast.__call__", "tokenizer")
        generate = outer.below("GPT2LMHeadModel.generate", "model")
        for _ in range(tokens):
            generate.module("model", model)
        text = " ".join(WORDS[4 + (number + place) % 4] for place in range(3))
        settings = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        return repr(pipeline(text, **settings)).encode()

    return predict


def sentence_transformers(truth):
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": len(WORDS), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with tempfile.TemporaryDirectory() as folder:
        BertModel(BertConfig(intermediate_size=16, max_position_embeddings=32, **sizes)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        words = models.Transformer(folder, max_seq_length=16)
    model = SentenceTransformer(modules=[words, models.Pooling(8, "mean")], device="cpu")

    def predict(number):
        encode = Calls(truth).below("SentenceTransformer.encode")
        encode.below("PreTrainedTokenizerFast.__call__")
        # It calls its `forward`, which calls what is in it.
        encode.below("Transformer.__call__", "0").module("auto_model", words.auto_model)
        encode.below("Pooling.__call__", "1")
        text = " ".join(WORDS[4 + (number + place) % 4] for place in range(5))
        return model.encode(text, show_progress_bar=False).round(4).tobytes()

    return predict


LIBRARIES = {"torch": torch_alone, "transformers": transformers, "sentence_transformers": sentence_transformers}


def main(library, calls):
    truth = Truth()
    predict = LIBRARIES[library](truth)

    def batch():
        return b"".join(predict(number) for number in range(calls))

    serve(batch, truth)


main(sys.argv[1], int(sys.argv[2]))
