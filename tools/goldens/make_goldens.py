#!/usr/bin/env python3
"""Makes tests/data/goldens: tiny random models and what Transformers computes with them.

Needs a Python with PyTorch and Transformers 5 (python -m venv DIR; DIR/bin/pip install torch transformers safetensors).
Nothing is downloaded. The files' layout and the tensors' names are described in tests/data/goldens/README.md.

    python tools/goldens/make_goldens.py [--out tests/data/goldens] [NAME...]

Everything is computed in float32 with eager attention on the CPU by one thread. A seed is refused, and the next one
tried, where a greedy choice or a router's choice is too close for another implementation to reproduce.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from config_v4 import to_v4
from sites import Greedy, Parts, TooClose, bookkeeping, distance, logits_of, record
from specs import COMMON, SPECS

TOLERANCE = 2e-4
MARGIN = 20 * TOLERANCE  # of the largest logit
ROUTER_MARGIN = 1e-3  # between the logits of the last expert chosen and the first one left out
PROMPT, NEW = 16, 24
STEER_LAYER = 1
FIRST_ID = 3  # 0, 1 and 2 are padding, beginning and end
SEEDS = 1000


def build(config):
    """A model with that config; its weights are set afterwards."""
    moe = {"experts_implementation": "eager"} if "moe" in config.model_type or config.model_type == "mixtral" else {}
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32, **moe).eval()


def load(folder, dtype=torch.float32):
    """A model from a folder, computed as `build` computes it."""
    config = AutoConfig.from_pretrained(folder)
    moe = {"experts_implementation": "eager"} if "moe" in config.model_type or config.model_type == "mixtral" else {}
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=dtype, **moe).eval()


def config_of(spec):
    """The family's config object."""
    common = dict(COMMON)
    if spec.kind == "gpt2":
        common.pop("max_position_embeddings")
    return AutoConfig.for_model(spec.kind, **{**common, **spec.config})


def gain_of(name, gains):
    """Factor on the random values of a parameter: large enough for peaked attention and for blocks that matter."""
    for part, gain in gains.items():
        if part in name:
            return gain
    if any(part in name for part in ("q_proj", "k_proj")):
        return 2.0
    if any(part in name for part in ("query_key_value", "qkv_proj", "c_attn")):
        return 1.6
    if any(part in name for part in ("o_proj", "dense.", "c_proj", "down_proj", "dense_4h_to_h", "mlp.gate.")):
        return 2.0
    return 1.2


@torch.no_grad()
def randomise(model, spec, generator):
    """Random weights: norms and biases away from 1 and 0, attention peaked."""
    conv1d = {id(m.weight) for m in model.modules() if type(m).__name__ == "Conv1D"}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            parameter.add_(0.3 * noise) if "bias" not in name else parameter.copy_(0.3 * noise)
            if any(part in name for part in ("q_norm", "k_norm", "q_layernorm", "k_layernorm")):
                parameter.add_(0.6)
        elif id(parameter) in embeddings:
            parameter.copy_(noise * next((g for part, g in spec.gains.items() if part in name), 0.8))
        else:
            fan_in = parameter.shape[0] if id(parameter) in conv1d else parameter.shape[-1]
            parameter.copy_(noise * gain_of(name, spec.gains) / fan_in**0.5)


def check_routers(model, ids):
    """TooClose where a token's choice of experts hangs on less than ROUTER_MARGIN."""
    margins, handles = [], []
    top = getattr(model.config, "num_experts_per_tok", 0)

    def hook(_, __, output):
        ordered = output[0].sort(descending=True).values
        margins.append(float((ordered[:, top - 1] - ordered[:, top]).min()))

    for name, module in model.named_modules():
        if name.endswith("mlp.gate"):
            handles.append(module.register_forward_hook(hook))
    logits_of(model, ids)
    for handle in handles:
        handle.remove()
    if margins and min(margins) < ROUTER_MARGIN:
        raise TooClose(f"router margin {min(margins):.3g}")
    return min(margins) if margins else None


def attempt(spec, seed):
    """Model, tensors and greedy margins for a seed; TooClose where the seed is of no use."""
    generator = torch.Generator().manual_seed(seed)
    model = build(config_of(spec))
    randomise(model, spec, generator)
    vocab = model.config.vocab_size
    ids = torch.randint(FIRST_ID, vocab, (spec.n_tokens,), generator=generator).tolist()
    sites = record(model, ids)
    post = sites[f"blocks.{STEER_LAYER}.hook_resid_post"]
    vector = torch.randn(post.shape[1], generator=generator) * post.pow(2).mean().sqrt() * 0.8

    plain = Greedy(model)
    steered = Greedy(model, STEER_LAYER, vector)
    steered_logits = steered.logits(ids[:PROMPT], PROMPT - 1)[-1]
    margin = MARGIN * max(float(sites["logits"].abs().max()), float(steered_logits.abs().max()))
    greedy, least = plain.run(ids[:PROMPT], NEW, margin)
    steered_greedy, steered_least = steered.run(ids[:PROMPT], NEW, margin)
    if min(greedy + steered_greedy) < FIRST_ID:
        raise TooClose("a special id in a greedy text")
    if len(set(greedy)) < 5 or len(set(steered_greedy)) < 5 or greedy == steered_greedy:
        raise TooClose("greedy texts too poor")
    router = [check_routers(model, text) for text in (ids, ids[:PROMPT] + greedy)]
    tensors = {"ids": torch.tensor(ids), **sites, "greedy": torch.tensor(greedy), "steer_vector": vector,
               "steered_logits": steered_logits, "steered_greedy": torch.tensor(steered_greedy)}
    return model, tensors, {"greedy_min_margin": least, "steered_min_margin": steered_least,
                            "required_margin": margin, "router_min_margin": router[0] and min(router)}


def changed(model, change):
    """A copy of the model with one feature wrong: keys of its config, or an edit of its modules."""
    config = model.config.to_dict()
    if isinstance(change, dict):
        config.update(change)
    copy = build(AutoConfig.for_model(config.pop("model_type"), **config))
    missing, _ = copy.load_state_dict(model.state_dict(), strict=False)
    if missing:
        raise RuntimeError(f"the change {change} needs weights that the model lacks: {missing}; use another change")
    if not isinstance(change, dict):
        change(copy)
    return copy


def sensitivity(spec, model, tensors):
    """How far the logits, and the site that moves most, move with each feature wrong."""
    ids = tensors["ids"].tolist()
    table = {"meaning": "distance of the logits, and of the site that moves most, when one thing is done wrong"}
    for label, change in spec.wrong.items():
        wrong = record(changed(model, change), ids)
        moved = {name: distance(value, tensors[name]) for name, value in wrong.items() if name in tensors}
        table[label] = {"logits": moved["logits"], "worst_site": max(moved.values())}
        if table[label]["worst_site"] < 10 * TOLERANCE:
            raise RuntimeError(f"{spec.name}: '{label}' moves nothing by more than {table[label]['worst_site']:.2g}; "
                               "expected at least 10 tolerances; change the spec")
    return table


def write_json(path, value):
    """Indented, but lists of numbers on one line."""
    text = json.dumps(value, indent=1)
    text = re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    path.write_text(text + "\n")


def check_reload(folder, tensors):
    """Both configs must load the weights back to the same logits, bit for bit; with a cache the choices stay."""
    ids = tensors["ids"].tolist()
    with tempfile.TemporaryDirectory() as other:
        os.symlink((folder / "model/model.safetensors").resolve(), os.path.join(other, "model.safetensors"))
        shutil.copy(folder / "config_v4.json", os.path.join(other, "config.json"))
        for path in (folder / "model", other):
            if not torch.equal(logits_of(load(path), ids), tensors["logits"]):
                raise RuntimeError(f"{path}: logits differ from those of the model that was written")
            prompt = tensors["ids"][None, :PROMPT]
            cached = load(path).generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW,
                                         do_sample=False, use_cache=True)[0, PROMPT:]
            if not torch.equal(cached, tensors["greedy"]):
                raise RuntimeError(f"{path}: greedy ids with a cache are {cached.tolist()}, without one "
                                   f"{tensors['greedy'].tolist()}")


def noise_of(folder, tensors):
    """What Transformers' own rounding does: float64 against float32, and bfloat16."""
    ids = tensors["ids"].tolist()
    double = record(load(folder / "model", torch.float64), ids)
    half = logits_of(load(folder / "model", torch.bfloat16), ids)
    return {"float64_max_over_sites": max(distance(value, tensors[name]) for name, value in double.items()),
            "bfloat16_logits": distance(half, tensors["logits"])}


def dims_of(model):
    """The sizes that a reader must find in the config."""
    c, parts = model.config, Parts(model)
    heads = c.num_attention_heads
    weight = parts.projection(parts.blocks[0]).weight
    width = weight.shape[0] if type(parts.projection(parts.blocks[0])).__name__ == "Conv1D" else weight.shape[1]
    return {"d_model": c.hidden_size, "n_layers": c.num_hidden_layers, "n_heads": heads,
            "n_kv_heads": getattr(c, "num_key_value_heads", heads), "d_head": width // heads,
            "d_mlp": getattr(c, "intermediate_size", None) or c.n_inner, "vocab": c.vocab_size}


def describe(spec, model, tensors, found):
    """golden.json but for the figures that are measured from the written files."""
    return {
        "family": spec.kind, "model": "model", "dims": dims_of(model), "n_tokens": spec.n_tokens,
        "prompt_tokens": PROMPT, "new_tokens": NEW, "stored_dtype": "float32",
        "computed_in": "float32, eager attention, CPU, one thread, no cache", "seed": found["seed"],
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
                     "python": platform.python_version()},
        "notes": spec.notes, "parallel_block": Parts(model).parallel,
        "tied": bool(model.config.tie_word_embeddings),
        "steer_layer": STEER_LAYER, "steer_site": f"blocks.{STEER_LAYER}.hook_resid_post",
        "steer_positions": f"the last prompt position ({PROMPT - 1}) and every generated token",
        "greedy": tensors["greedy"].tolist(), "steered_greedy": tensors["steered_greedy"].tolist(),
        **found["margins"],
        "residual_bookkeeping": bookkeeping(tensors, model.config.num_hidden_layers),
    }


def search(spec):
    """The first seed whose choices are clear."""
    reasons = []
    for seed in range(1, SEEDS):
        try:
            model, tensors, margins = attempt(spec, seed)
            return model, tensors, {"seed": seed, "margins": margins}
        except TooClose as reason:
            reasons.append(str(reason))
    raise RuntimeError(f"{spec.name}: no seed below {SEEDS} has clear choices (last: {reasons[-3:]}); change its gains")


def make(spec, out):
    """Writes the folder of one model."""
    model, tensors, found = search(spec)
    folder = out / spec.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder / "model")
    (folder / "model/generation_config.json").unlink(missing_ok=True)
    v5 = json.loads((folder / "model/config.json").read_text())
    write_json(folder / "config_v4.json", to_v4(v5, spec.pattern))
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "golden.safetensors")
    check_reload(folder, tensors)
    golden = describe(spec, model, tensors, found)
    golden["noise"] = noise_of(folder, tensors)
    golden["tolerance"] = {"meaning": "max |x - golden| of a tensor, divided by its max |golden|", "float32": TOLERANCE,
                           "bfloat16_activations": round(2 * golden["noise"]["bfloat16_logits"], 3)}
    golden["sensitivity"] = sensitivity(spec, model, tensors)
    golden["names"] = list(tensors)
    write_json(folder / "golden.json", golden)
    return golden


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/data/goldens")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these models")
    args = parser.parse_args()
    unknown = set(args.names) - {spec.name for spec in SPECS}
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; known: {', '.join(s.name for s in SPECS)}")
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for spec in SPECS:
        if args.names and spec.name not in args.names:
            continue
        golden = make(spec, args.out)
        moved = min(entry["logits"] for entry in golden["sensitivity"].values() if isinstance(entry, dict))
        print(f"{spec.name}: seed {golden['seed']}, float64 {golden['noise']['float64_max_over_sites']:.1e}, "
              f"bfloat16 {golden['noise']['bfloat16_logits']:.2g}, bookkeeping {golden['residual_bookkeeping']:.1e}, "
              f"least sensitivity {moved:.2g}")


if __name__ == "__main__":
    main()
