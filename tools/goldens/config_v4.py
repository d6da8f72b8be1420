"""Writes the config of Transformers 5 with the key names of Transformers 4, which most published checkpoints carry."""

import copy

# Keys that only Transformers 5 (or late 4.x) writes.
NEW_KEYS = ("dtype", "rope_parameters", "layer_types", "_sliding_window_pattern", "use_bidirectional_attention",
            "transformers_version")


def _scaling(rope):
    """`rope_scaling` of Transformers 4: what rope_parameters says beyond base and rotated share; None if nothing."""
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    return None if scaling.get("rope_type", "default") == "default" else scaling


def _plain_rope(config, rope):
    """Rope keys of the families that have one rope for all layers."""
    kind = config["model_type"]
    if kind == "gpt_neox":
        config["rotary_pct"], config["rotary_emb_base"] = rope["partial_rotary_factor"], rope["rope_theta"]
        return
    config["rope_theta"], config["rope_scaling"] = rope["rope_theta"], _scaling(rope)
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if kind == "phi3" and config["rope_scaling"]:
        # Published Phi-3 files name the type `type` and keep the original context beside the scaling.
        scaling = config["rope_scaling"]
        scaling["type"] = scaling.pop("rope_type")
        config["original_max_position_embeddings"] = scaling.pop("original_max_position_embeddings")


def to_v4(config, n_local_pattern=None):
    """The same model in the spelling of Transformers 4.

    n_local_pattern: Gemma 3 only, sliding_window_pattern (every so-many-th layer is global).
    """
    config = copy.deepcopy(config)
    kind = config["model_type"]
    rope = config.get("rope_parameters")
    v4 = {key: value for key, value in config.items() if key not in NEW_KEYS}
    v4["torch_dtype"] = config["dtype"]
    v4["transformers_version"] = "4.51.0"
    if kind == "gemma3_text":
        v4["rope_theta"] = rope["full_attention"]["rope_theta"]
        v4["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        v4["rope_scaling"] = _scaling(rope["full_attention"])
        v4["sliding_window_pattern"] = n_local_pattern
        v4["cache_implementation"] = "hybrid"
    elif rope is not None:
        _plain_rope(v4, rope)
    if kind == "gemma2":
        v4["hidden_act"], v4["cache_implementation"] = v4["hidden_activation"], "hybrid"
    if kind == "gpt2":
        v4["n_ctx"] = v4["n_positions"]
        if v4.get("tie_word_embeddings"):
            del v4["tie_word_embeddings"]  # the default, never written
    if kind == "qwen3_moe" and "num_local_experts" in v4:
        v4["num_experts"] = v4.pop("num_local_experts")
    return v4
