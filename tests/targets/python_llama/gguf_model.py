"""A model of llama.cpp with random weights, as a file in its format: two layers, and an alphabet that it writes with."""

import gguf
import numpy

SIZE, HEADS, LAYERS, CONTEXT = 32, 2, 2, 256
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# `▁` is a space.
PIECES = [*SPECIAL, *BYTES, "▁", *"abcdefghijklmnopqrstuvwxyz"]


def write(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_vocab_size(len(PIECES))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(PIECES)
    writer.add_token_scores([0.0] * len(PIECES))
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * len(BYTES)]
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(PIECES) - len(kinds)))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    numbers = numpy.random.default_rng(3)

    def add(name, *shape, zeros=0):
        weights = numbers.normal(scale=0.3, size=shape).astype(numpy.float32)
        weights[:zeros] = 0
        writer.add_tensor(f"{name}.weight", weights)

    def add_ones(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(SIZE, numpy.float32))

    add("token_embd", len(PIECES), SIZE)
    # A letter is likelier than what has 0: no text ends early, or in the middle of a character.
    add("output", len(PIECES), SIZE, zeros=len(SPECIAL) + len(BYTES))
    add_ones("output_norm")
    for layer in range(LAYERS):
        for name in ["attn_norm", "ffn_norm"]:
            add_ones(f"blk.{layer}.{name}")
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            add(f"blk.{layer}.{name}", SIZE, SIZE)
        for name in ["ffn_gate", "ffn_up"]:
            add(f"blk.{layer}.{name}", 2 * SIZE, SIZE)
        add(f"blk.{layer}.ffn_down", SIZE, 2 * SIZE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
