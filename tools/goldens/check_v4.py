#!/usr/bin/env python3
"""Checks with Transformers 4 itself that each config_v4.json describes the model that its goldens were made with.

Optional: needs a Python with PyTorch and transformers 4.57 (the last of that line). The logits must agree to CLOSE.

    python tools/goldens/check_v4.py [--goldens tests/data/goldens] [NAME...]
"""

import argparse
import os
import pathlib
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

CLOSE = 1e-5


@torch.no_grad()
def distance(folder):
    """How far the logits of Transformers 4 are from the goldens, relative to the largest."""
    golden = load_file(folder / "golden.safetensors")
    with tempfile.TemporaryDirectory() as model:
        os.symlink((folder / "model/model.safetensors").resolve(), os.path.join(model, "model.safetensors"))
        os.symlink((folder / "config_v4.json").resolve(), os.path.join(model, "config.json"))
        loaded, info = AutoModelForCausalLM.from_pretrained(
            model, attn_implementation="eager", torch_dtype=torch.float32, output_loading_info=True)
    if any(info.values()):
        raise RuntimeError(f"{folder.name}: weights and config do not fit: {info}")
    logits = loaded.eval()(input_ids=golden["ids"][None], use_cache=False).logits[0]
    return float((logits - golden["logits"]).abs().max() / golden["logits"].abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--goldens", type=pathlib.Path, default=root / "tests/data/goldens")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    if not transformers.__version__.startswith("4."):
        parser.error(f"this is Transformers {transformers.__version__}; needs 4 (pip install transformers==4.57.3)")
    transformers.utils.logging.set_verbosity_error()
    failed = 0
    for folder in sorted(path.parent for path in args.goldens.glob("*/golden.json")):
        if args.names and folder.name not in args.names:
            continue
        far = distance(folder)
        failed += far > CLOSE
        print(f"{folder.name}: {far:.1e}{'' if far <= CLOSE else ' FAILED'}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
