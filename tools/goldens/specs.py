"""The models: what each one is, what it is there to test, and how to get one feature wrong."""

from dataclasses import dataclass, field
from typing import Callable

from torch import nn


@dataclass
class Spec:
    """One golden model.

    config: arguments of the family's config beyond COMMON (GPT-2 has names of its own).
    wrong: label -> what to change in the config (a dict of keys) or in the model (a function) to get a feature wrong.
    gains: part of a parameter's name -> factor on its random values.
    """

    name: str
    kind: str
    config: dict
    notes: list
    wrong: dict = field(default_factory=dict)
    gains: dict = field(default_factory=dict)
    n_tokens: int = 40
    pattern: int | None = None  # Gemma 3: every so-many-th layer is global


COMMON = dict(vocab_size=97, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=256)


def shape(hidden, layers, heads, kv, mlp, tied):
    """The size keys that nearly all families share."""
    return dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                intermediate_size=mlp, tie_word_embeddings=tied)


def rope(kind="default", theta=10000.0, **more):
    """rope_parameters of Transformers 5."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def replaced(name, make: Callable[[], nn.Module]):
    """Replaces every module whose name ends in `name`."""
    def edit(model):
        for path, _ in list(model.named_modules()):
            if path == name or path.endswith("." + name):
                model.set_submodule(path, make())
    return edit


def scaled(name, factor):
    """Multiplies every parameter whose name ends in `name`."""
    def edit(model):
        for path, parameter in model.named_parameters():
            if path.endswith(name):
                parameter.data.mul_(factor)
    return edit


def both(*edits):
    """Several edits of a model, one after the other."""
    def edit(model):
        for one in edits:
            one(model)
    return edit


def _llama(name, notes, wrong, rope_keys, **changes):
    config = {**shape(24, 2, 3, 1, 36, False), "rms_norm_eps": 1e-3, **rope_keys, **changes}
    return Spec(name, "llama", config, notes, wrong)


OLMO2 = [
    Spec("olmo2", "olmo2", {**shape(30, 3, 5, 1, 36, False), "rms_norm_eps": 1e-3, **rope(theta=500.0)},
         ["norms after attention and MLP only; q_norm and k_norm over all heads at once; five heads of 6 on one"],
         {"no q_norm and k_norm": both(replaced("q_norm", nn.Identity), replaced("k_norm", nn.Identity)),
          "no norm after attention": replaced("post_attention_layernorm", nn.Identity),
          "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6}}),
]

LLAMA = [
    _llama("llama_yarn", ["YaRN, factor 4 over 64 positions: ramp over 4 of 6 frequencies; attention factor "
                          "0.1 ln 4 + 1"],
           {"no rope scaling": rope(theta=100.0), "linear instead": rope("linear", 100.0, factor=4.0),
            "attention factor 1": rope("yarn", 100.0, factor=4.0, original_max_position_embeddings=64,
                                       attention_factor=1.0)},
           rope("yarn", 100.0, factor=4.0, original_max_position_embeddings=64), head_dim=12),
]

SPECS = OLMO2 + LLAMA
