#!/usr/bin/env python3
"""Writes the models that the rivals are measured with: random weights in the shape of real models.

usage: models.py FOLDER SHAPE [TOKENIZER.gguf]

FOLDER/SHAPE.bf16.gguf, for saif and llama.cpp, and FOLDER/SHAPE/ (config.json, model.safetensors), for Transformers,
hold the same numbers. Speed depends on the size of the matrices, not on what is in them. With TOKENIZER.gguf its
tokenizer is written into the GGUF file; without, the file has none.
"""

import json
import os
import struct
import sys

import gguf
import numpy as np

# From the published config.json of each.
SHAPES = {
    "135m": {"family": "llama", "d": 576, "mlp": 1536, "layers": 30, "heads": 9, "kv": 3, "head": 64, "vocab": 49152,
             "context": 8192, "theta": 100000.0},
    "1b": {"family": "llama", "d": 2048, "mlp": 8192, "layers": 16, "heads": 32, "kv": 8, "head": 64, "vocab": 128256,
           "context": 131072, "theta": 500000.0,
           "llama3": {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192}},
    "2.6b": {"family": "gemma2", "d": 2304, "mlp": 9216, "layers": 26, "heads": 8, "kv": 4, "head": 256,
             "vocab": 256000, "context": 8192, "theta": 10000.0},
}
EPS = 1e-5
PERIOD = 1 << 22  # random numbers that are drawn; every matrix begins at another one


def config_of(s):
    gemma = s["family"] == "gemma2"
    config = {
        "architectures": ["Gemma2ForCausalLM" if gemma else "LlamaForCausalLM"],
        "model_type": s["family"], "vocab_size": s["vocab"], "hidden_size": s["d"], "intermediate_size": s["mlp"],
        "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv"],
        "head_dim": s["head"], "max_position_embeddings": s["context"], "rope_theta": s["theta"],
        "rms_norm_eps": EPS, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "attention_bias": False,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if gemma:
        config.update(hidden_activation="gelu_pytorch_tanh", attn_logit_softcapping=50.0,
                      final_logit_softcapping=30.0, query_pre_attn_scalar=256, sliding_window=4096)
    else:
        config["hidden_act"] = "silu"
    if "llama3" in s:
        config["rope_scaling"] = {"rope_type": "llama3", **s["llama3"]}
    return config


def matrices_of(s):
    """(name of Transformers, name of GGUF, rows, columns, heads whose rows GGUF keeps in pairs; 0: as they are)"""
    d, q, kv = s["d"], s["heads"] * s["head"], s["kv"] * s["head"]
    pairs = s["family"] == "llama"
    yield "model.embed_tokens", "token_embd", s["vocab"], d, 0
    for i in range(s["layers"]):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        yield hf + "self_attn.q_proj", gg + "attn_q", q, d, s["heads"] if pairs else 0
        yield hf + "self_attn.k_proj", gg + "attn_k", kv, d, s["kv"] if pairs else 0
        yield hf + "self_attn.v_proj", gg + "attn_v", kv, d, 0
        yield hf + "self_attn.o_proj", gg + "attn_output", d, q, 0
        yield hf + "mlp.gate_proj", gg + "ffn_gate", s["mlp"], d, 0
        yield hf + "mlp.up_proj", gg + "ffn_up", s["mlp"], d, 0
        yield hf + "mlp.down_proj", gg + "ffn_down", d, s["mlp"], 0


def norms_of(s):
    yield "model.norm", "output_norm"
    gemma = s["family"] == "gemma2"
    for i in range(s["layers"]):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        yield hf + "input_layernorm", gg + "attn_norm"
        yield hf + "post_attention_layernorm", gg + ("post_attention_norm" if gemma else "ffn_norm")
        if gemma:
            yield hf + "pre_feedforward_layernorm", gg + "ffn_norm"
            yield hf + "post_feedforward_layernorm", gg + "post_ffw_norm"


class Numbers:
    """bf16 bits of normal numbers of deviation 0.02, as at the start of training."""

    def __init__(self):
        x = np.random.default_rng(6).standard_normal(PERIOD, dtype=np.float32) * np.float32(0.02)
        bits = x.view(np.uint32)
        self.bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        self.start = 0

    def matrix(self, rows, columns):
        self.start = (self.start + 1000003) % PERIOD
        turned = np.roll(self.bits, -self.start)
        return np.resize(turned, (rows, columns))


def in_pairs(w, heads):
    """The order in which GGUF keeps the rows of queries and keys that Llama rotates."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def write_folder(folder, s):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config_of(s), f, indent=1)
    header, at = {"__metadata__": {"format": "pt"}}, 0

    def place(name, shape):
        nonlocal at
        size = 2 * int(np.prod(shape))
        header[name + ".weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size

    for hf, _, rows, columns, _ in matrices_of(s):
        place(hf, [rows, columns])
    for hf, _ in norms_of(s):
        place(hf, [s["d"]])
    # Gemma's norms multiply by 1 + w.
    one = np.full(s["d"], 0 if s["family"] == "gemma2" else 0x3F80, np.uint16)
    numbers = Numbers()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, rows, columns, _ in matrices_of(s):
            numbers.matrix(rows, columns).tofile(f)
        for _ in norms_of(s):
            one.tofile(f)


def rope_factors(s):
    """What llama3 rope scaling divides frequencies by."""
    r = s["llama3"]
    frequencies = s["theta"] ** -(np.arange(0, s["head"], 2, dtype=np.float64) / s["head"])
    waves = 2 * np.pi / frequencies
    low, high = (r["original_max_position_embeddings"] / r[k] for k in ("low_freq_factor", "high_freq_factor"))
    blend = (r["original_max_position_embeddings"] / waves - r["low_freq_factor"]) / (
        r["high_freq_factor"] - r["low_freq_factor"])
    middle = 1 / ((1 - blend) / r["factor"] + blend)
    return np.where(waves < high, 1.0, np.where(waves > low, r["factor"], middle)).astype(np.float32)


def write_gguf(path, s, tokenizer):
    w = gguf.GGUFWriter(path, s["family"], use_temp_file=False)
    w.add_name(os.path.basename(path))
    w.add_context_length(s["context"])
    w.add_embedding_length(s["d"])
    w.add_block_count(s["layers"])
    w.add_feed_forward_length(s["mlp"])
    w.add_head_count(s["heads"])
    w.add_head_count_kv(s["kv"])
    w.add_key_length(s["head"])
    w.add_value_length(s["head"])
    w.add_rope_dimension_count(s["head"])
    w.add_rope_freq_base(s["theta"])
    w.add_layer_norm_rms_eps(EPS)
    w.add_vocab_size(s["vocab"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    if s["family"] == "gemma2":
        w.add_attn_logit_softcapping(50.0)
        w.add_final_logit_softcapping(30.0)
        w.add_sliding_window(4096)
    if tokenizer:
        for name, field in gguf.GGUFReader(tokenizer).fields.items():
            if name.startswith("tokenizer."):
                kinds = list(field.types)
                w.add_key_value(name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    else:
        w.add_tokenizer_model("no_vocab")
    if "llama3" in s:
        w.add_tensor("rope_freqs.weight", rope_factors(s))
    numbers = Numbers()
    bf16 = gguf.GGMLQuantizationType.BF16
    for _, gg, rows, columns, heads in matrices_of(s):
        m = numbers.matrix(rows, columns)
        w.add_tensor(gg + ".weight", np.ascontiguousarray(in_pairs(m, heads)) if heads else m, raw_dtype=bf16)
    for _, gg in norms_of(s):
        w.add_tensor(gg + ".weight", np.ones(s["d"], np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    folder, shape = sys.argv[1:3]
    tokenizer = sys.argv[3] if len(sys.argv) > 3 else ""
    s = SHAPES[shape]
    write_folder(os.path.join(folder, shape), s)
    path = os.path.join(folder, shape + ".bf16.gguf")
    write_gguf(path + ".tmp", s, tokenizer)
    os.rename(path + ".tmp", path)


if __name__ == "__main__":
    main()
