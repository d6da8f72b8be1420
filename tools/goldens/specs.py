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


def both(*edits):
    """Several edits of a model, one after the other."""
    def edit(model):
        for one in edits:
            one(model)
    return edit


def zeroed_biases(*parts):
    """Zeroes every bias whose name contains one of `parts`."""
    def edit(model):
        for path, parameter in model.named_parameters():
            if path.endswith(".bias") and any(part in path for part in parts):
                parameter.data.zero_()
    return edit


SMALL_EPS = {"rms_norm_eps": 1e-6}

OLMO2 = [
    Spec("olmo2", "olmo2", {**shape(30, 2, 5, 1, 28, False), "rms_norm_eps": 1e-3, **rope(theta=500.0)},
         ["norms after attention and MLP only; q_norm and k_norm over all heads at once; five heads of 6 on one"],
         {"no q_norm and k_norm": both(replaced("q_norm", nn.Identity), replaced("k_norm", nn.Identity)),
          "no norm after attention": replaced("post_attention_layernorm", nn.Identity),
          "rms_norm_eps 1e-6": SMALL_EPS}),
    Spec("olmo2_bias", "olmo2", {**shape(24, 2, 3, 3, 32, True), "rms_norm_eps": 1e-3, "attention_bias": True,
                                 **rope(theta=10000.0)},
         ["attention_bias, tied, every head with its own key"],
         {"no attention biases": zeroed_biases("self_attn"), "no o_proj bias": zeroed_biases("o_proj")},
         {"embed_tokens": 0.4}),
]

_GRANITE_WRONG = {"embedding_multiplier 1": {"embedding_multiplier": 1.0},
                  "residual_multiplier 1": {"residual_multiplier": 1.0},
                  "logits_scaling 1": {"logits_scaling": 1.0}}
GRANITE = [
    Spec("granite", "granite", {**shape(28, 2, 7, 1, 32, False), "rms_norm_eps": 1e-3, "embedding_multiplier": 5.0,
                                "attention_multiplier": 0.3, "residual_multiplier": 0.6, "logits_scaling": 3.0,
                                **rope(theta=1000.0)},
         ["seven heads of 4 on one; attention scale 0.3 where 1/sqrt(4) is 0.5"],
         {**_GRANITE_WRONG, "attention scale 1/sqrt(d_head)": {"attention_multiplier": 0.5}},
         {"embed_tokens": 0.2}),
    Spec("granite_bias", "granite", {**shape(30, 2, 3, 3, 28, True), "rms_norm_eps": 1e-3,
                                     "embedding_multiplier": 4.0, "attention_multiplier": 0.2,
                                     "residual_multiplier": 1.25, "logits_scaling": 0.5, "attention_bias": True,
                                     "mlp_bias": True, **rope()},
         ["attention_bias and mlp_bias, tied, three heads of 10; residual_multiplier scales the biases too"],
         {**_GRANITE_WRONG, "attention scale 1/sqrt(d_head)": {"attention_multiplier": 10**-0.5},
          "no attention biases": zeroed_biases("self_attn"), "no MLP biases": zeroed_biases("mlp")},
         {"embed_tokens": 0.2}),
]

STABLELM = [
    Spec("stablelm", "stablelm", {**shape(24, 2, 3, 1, 36, False), "use_qkv_bias": True, "layer_norm_eps": 1e-3,
                                  **rope(partial_rotary_factor=0.5)},
         ["sequential; half of each head of 8 is rotated; q, k and v have biases, o has none"],
         {"all of the head rotated": rope(partial_rotary_factor=1.0),
          "a quarter rotated": rope(partial_rotary_factor=0.25), "no q, k, v biases": zeroed_biases("self_attn"),
          "no norm biases": zeroed_biases("norm"), "layer_norm_eps 1e-6": {"layer_norm_eps": 1e-6}}),
    Spec("stablelm_parallel", "stablelm", {**shape(24, 2, 3, 3, 28, True), "use_parallel_residual": True,
                                           "layer_norm_eps": 1e-3, **rope(partial_rotary_factor=0.25)},
         ["attention and MLP both read input_layernorm of the same stream: no hook_resid_mid, no second norm; tied; "
          "2 of 8 are rotated"],
         {"all of the head rotated": rope(partial_rotary_factor=1.0)}),
    Spec("stablelm_qk_layernorm", "stablelm", {**shape(24, 2, 6, 2, 32, False), "qk_layernorm": True,
                                               "layer_norm_eps": 1e-3, **rope(partial_rotary_factor=0.5)},
         ["LayerNorm without bias and with a weight of its own for every query and key head, before rotation"],
         {"no q and k norms": {"qk_layernorm": False}}),
]

_MOE = {"rms_norm_eps": 1e-3, "norm_topk_prob": True, "num_experts_per_tok": 2}
MOE = [
    Spec("qwen3_moe", "qwen3_moe", {**shape(24, 3, 6, 2, 36, False), **_MOE, "head_dim": 6, "num_experts": 5,
                                    "moe_intermediate_size": 10, "mlp_only_layers": [1], **rope(theta=1000.0)},
         ["layers 0 and 2: five experts, two chosen, weights brought to sum 1; layer 1 is dense; head_dim 6 differs "
          "from hidden_size / heads = 4"],
         {"weights of experts not brought to sum 1": {"norm_topk_prob": False},
          "one expert only": {"num_experts_per_tok": 1}}),
    Spec("qwen3_moe_step", "qwen3_moe", {**shape(24, 2, 3, 1, 32, True), **_MOE, "norm_topk_prob": False,
                                         "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 12,
                                         "decoder_sparse_step": 2, **rope()},
         ["decoder_sparse_step 2: layer 0 is dense, layer 1 has experts; weights of experts as the softmax over all "
          "gives them; tied"],
         {"weights of experts brought to sum 1": {"norm_topk_prob": True}}),
    Spec("qwen3_moe_all", "qwen3_moe", {**shape(32, 2, 4, 2, 48, False), **_MOE, "head_dim": 8, "num_experts": 4,
                                        "moe_intermediate_size": 12, **rope(theta=1000.0)},
         ["four experts in every block, as GGUF can say it"],
         {"weights of experts not brought to sum 1": {"norm_topk_prob": False},
          "three experts": {"num_experts_per_tok": 3}}),
    Spec("mixtral", "mixtral", {**shape(24, 2, 4, 1, 20, False), "rms_norm_eps": 1e-3, "num_local_experts": 4,
                                "num_experts_per_tok": 2, "sliding_window": None, **rope(theta=1e6)},
         ["four experts, two chosen, weights brought to sum 1; sliding_window null"],
         {"one expert only": {"num_experts_per_tok": 1}, "three experts": {"num_experts_per_tok": 3},
          "sliding_window 9": {"sliding_window": 9}}),
]

NEOX = [
    Spec("gpt_neox_sequential", "gpt_neox", {**shape(24, 2, 3, 3, 40, True), "use_parallel_residual": False,
                                             "layer_norm_eps": 1e-3, **rope(partial_rotary_factor=0.5)},
         ["sequential block: hook_resid_mid is there; half of each head of 8 is rotated; tied: no embed_out"],
         {"parallel block": {"use_parallel_residual": True},
          "all of the head rotated": rope(partial_rotary_factor=1.0),
          "a quarter rotated": rope(partial_rotary_factor=0.25)}),
]
NEOX[0].config.pop("num_key_value_heads")


def _llama(name, sizes, notes, wrong, **changes):
    return Spec(name, "llama", {**shape(*sizes), "rms_norm_eps": 1e-3, **changes}, notes, wrong)


_YARN = dict(factor=4.0, original_max_position_embeddings=64)
_YARN_MSCALE = dict(factor=8.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5, mscale=0.5,
                    mscale_all_dim=1.0)
_LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
_FACTOR = dict(short_factor=[1.0, 1.4, 2.1, 3.3], long_factor=[2.0, 3.0, 4.0, 5.0],
               original_max_position_embeddings=256)
LLAMA = [
    _llama("llama_linear", (24, 2, 3, 3, 32, True), ["positions divided by 4; tied"],
           {"no rope scaling": rope(), "factor 2": rope("linear", factor=2.0)}, **rope("linear", factor=4.0)),
    _llama("llama3", (28, 2, 4, 1, 28, False),
           ["Llama 3 scaling over 32 positions: wavelength 6.3 stays, 13.5 and 29 are between, the others are "
            "divided by 8; four heads of 12 (not 28 / 4) on one"],
           {"no rope scaling": rope(theta=100.0), "linear instead": rope("linear", 100.0, factor=8.0),
            "low_freq_factor 2": rope("llama3", 100.0, **{**_LLAMA3, "low_freq_factor": 2.0})},
           head_dim=12, **rope("llama3", 100.0, **_LLAMA3)),
    _llama("llama_yarn", (24, 2, 3, 1, 36, False),
           ["YaRN, factor 4 over 64 positions: ramp over the first 4 of 6 frequencies; attention factor 0.1 ln 4 + 1"],
           {"no rope scaling": rope(theta=100.0), "linear instead": rope("linear", 100.0, factor=4.0),
            "attention factor 1": rope("yarn", 100.0, **_YARN, attention_factor=1.0)},
           head_dim=12, **rope("yarn", 100.0, **_YARN)),
    _llama("llama_yarn_mscale", (24, 2, 3, 3, 28, True),
           ["YaRN with beta_fast, beta_slow, mscale and mscale_all_dim: attention factor "
            "(0.05 ln 8 + 1) / (0.1 ln 8 + 1); tied"],
           {"no rope scaling": rope(theta=100.0),
            "without mscale": rope("yarn", 100.0, **{**_YARN_MSCALE, "mscale": None, "mscale_all_dim": None}),
            "default betas": rope("yarn", 100.0, **{**_YARN_MSCALE, "beta_fast": 32.0, "beta_slow": 1.0})},
           head_dim=12, **rope("yarn", 100.0, **_YARN_MSCALE)),
    _llama("llama_bias", (24, 2, 4, 1, 32, False),
           ["attention_bias and mlp_bias: all seven projections have one; head_dim 10 differs from 24 / 4"],
           {"no attention biases": zeroed_biases("self_attn"), "no o_proj bias": zeroed_biases("o_proj"),
            "no MLP biases": zeroed_biases("mlp"), "no down_proj bias": zeroed_biases("down_proj")},
           head_dim=10, attention_bias=True, mlp_bias=True, **rope()),
    _llama("llama_longrope_factor", (24, 2, 3, 1, 32, False),
           ["LongRoPE with `factor`: cos and sin are multiplied by sqrt(1 + ln(17) / ln(256)), although the contexts are "
            "alike"],
           {"factor of the contexts": rope("longrope", 100.0, **_FACTOR, factor=1.0),
            "no rope scaling": rope(theta=100.0)}, **rope("longrope", 100.0, **_FACTOR, factor=17.0)),
]


def _layers(kind, n):
    return {"layer_types": [f"{kind}_attention"] * n}


WINDOWS = [
    Spec("qwen2_window", "qwen2", {**shape(24, 2, 3, 1, 32, False), "rms_norm_eps": 1e-3, "use_sliding_window": True,
                                   "max_window_layers": 1, "sliding_window": 7, **rope()},
         ["layer 0 sees everything, layer 1 a window of 7; untied"],
         {"no window": _layers("full", 2), "window in every layer": _layers("sliding", 2),
          "window 6": {"sliding_window": 6}, "window 8": {"sliding_window": 8}}),
    Spec("mistral_window", "mistral", {**shape(30, 2, 5, 1, 32, False), "rms_norm_eps": 1e-3, "sliding_window": 9,
                                       **rope()},
         ["window of 9 in every layer; five heads of 6 on one"],
         {"no window": {"sliding_window": None}, "window 8": {"sliding_window": 8},
          "window 10": {"sliding_window": 10}}),
]

_LONGROPE = dict(short_factor=[1.0, 1.7, 3.1], long_factor=[1.5, 5.0, 9.0], original_max_position_embeddings=64,
                 partial_rotary_factor=0.75)
PHI3 = [
    Spec("phi3_partial", "phi3", {**shape(24, 2, 3, 1, 32, True), "rms_norm_eps": 1e-3, "sliding_window": 11,
                                  **rope(partial_rotary_factor=0.5)},
         ["4 of 8 are rotated; window of 11 in every layer; tied"],
         {"all of the head rotated": rope(partial_rotary_factor=1.0), "no window": {"sliding_window": None},
          "window 10": {"sliding_window": 10}, "window 12": {"sliding_window": 12}}),
    Spec("phi3_longrope_short", "phi3", {**shape(24, 2, 3, 3, 32, False), "rms_norm_eps": 1e-3,
                                         "original_max_position_embeddings": 64,
                                         **rope("longrope", 100.0, **_LONGROPE)},
         ["every text is shorter than the original context of 64: short factors throughout, and yet cos and sin are "
          "multiplied by sqrt(1 + ln(256/64) / ln 64); 6 of 8 are rotated"],
         {"long factors": rope("longrope", 100.0, **{**_LONGROPE, "short_factor": _LONGROPE["long_factor"]}),
          "no rope scaling": rope(theta=100.0, partial_rotary_factor=0.75),
          "no attention factor": rope("longrope", 100.0, **_LONGROPE, attention_factor=1.0)}),
]


def _gemma3_rope(scaling):
    return {"rope_parameters": {"full_attention": {"rope_theta": 1000.0, **scaling},
                                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}


_GLOBAL_LONGROPE = dict(rope_type="longrope", short_factor=[1.0, 1.3, 1.9, 2.6], long_factor=[2.0, 3.0, 4.0, 5.0],
                        original_max_position_embeddings=64, attention_factor=1.2)
GEMMA = [
    Spec("gemma3_text_linear", "gemma3_text",
         {**shape(24, 3, 3, 1, 28, False), "rms_norm_eps": 1e-3, "head_dim": 10, "query_pre_attn_scalar": 20,
          "sliding_window": 7, "sliding_window_pattern": 2, **_gemma3_rope({"rope_type": "linear", "factor": 4.0})},
         ["layers 0 and 2 are local (window 7, base 100), layer 1 is global (base 1000, positions divided by 4); "
          "untied; attention scale 1/sqrt(20) with d_head 10"],
         {"no rope scaling": _gemma3_rope({"rope_type": "default"}),
          "scaling in local layers too": {"rope_parameters": {
              "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
              "sliding_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}}},
          "no window": _layers("full", 3), "window 6": {"sliding_window": 6}, "window 8": {"sliding_window": 8},
          "query_pre_attn_scalar = head_dim": {"query_pre_attn_scalar": 10}}, pattern=2),
    Spec("gemma3_text_longrope", "gemma3_text",
         {**shape(24, 3, 3, 1, 28, True), "rms_norm_eps": 1e-3, "head_dim": 8, "query_pre_attn_scalar": 8,
          "sliding_window": 7, "sliding_window_pattern": 2, **_gemma3_rope(_GLOBAL_LONGROPE)},
         ["LongRoPE in layer 1 alone, which is global, with an attention_factor of 1.2; layers 0 and 2 are local and turn "
          "at their positions as they are; tied"],
         {"no rope scaling": _gemma3_rope({"rope_type": "default"}),
          "local layers at twice the position": {"rope_parameters": {
              "full_attention": {"rope_theta": 1000.0, **_GLOBAL_LONGROPE},
              "sliding_attention": {"rope_type": "longrope", "rope_theta": 100.0, "short_factor": [0.5] * 4,
                                    "long_factor": [0.5] * 4, "attention_factor": 1.0,
                                    "original_max_position_embeddings": 64}}},
          "no attention factor": _gemma3_rope({**_GLOBAL_LONGROPE, "attention_factor": 1.0})},
         {"embed_tokens": 0.2}, pattern=2),
    Spec("gemma2_caps", "gemma2",
         {**shape(24, 3, 4, 1, 32, True), "rms_norm_eps": 1e-3, "head_dim": 10, "query_pre_attn_scalar": 6,
          "sliding_window": 7, "attn_logit_softcapping": 8.0, "final_logit_softcapping": 5.0, **rope()},
         ["layers 0 and 2 are local (window 7); soft-caps 8 (attention) and 5 (logits); attention scale 1/sqrt(6) "
          "with d_head 10; four heads on one"],
         {"no attention softcap": {"attn_logit_softcapping": None},
          "no final softcap": {"final_logit_softcapping": None},
          "attention softcap 50": {"attn_logit_softcapping": 50.0}, "no window": {"sliding_window": 256},
          "window 6": {"sliding_window": 6}, "window 8": {"sliding_window": 8},
          "query_pre_attn_scalar = head_dim": {"query_pre_attn_scalar": 10}}, gains={"embed_tokens": 0.2}),
]

GPT2 = [
    Spec("gpt2_inner", "gpt2", {"n_embd": 30, "n_layer": 2, "n_head": 3, "n_inner": 44, "n_positions": 64,
                                "layer_norm_epsilon": 1e-3, "scale_attn_by_inverse_layer_idx": True},
         ["n_inner 44 (not 4 * 30); attention scores of layer 1 are divided by 2"],
         {"scores not divided": {"scale_attn_by_inverse_layer_idx": False},
          "ReLU for GELU": {"activation_function": "relu"}}),
]

QWEN3 = [
    Spec("qwen3_bias", "qwen3", {**shape(24, 2, 4, 1, 32, True), "rms_norm_eps": 1e-3, "head_dim": 10,
                                 "attention_bias": True, **rope(theta=1e6)},
         ["attention_bias: q, k, v and o have biases; q_norm and k_norm come after them; head_dim 10; tied"],
         {"no attention biases": zeroed_biases("self_attn"), "no o_proj bias": zeroed_biases("o_proj")}),
]

SPECS = OLMO2 + GRANITE + STABLELM + MOE + NEOX + LLAMA + WINDOWS + PHI3 + GEMMA + GPT2 + QWEN3
