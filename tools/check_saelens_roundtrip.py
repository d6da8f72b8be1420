#!/usr/bin/env python3
"""Checks that SAELens and saif read each other's SAEs and get the same latents from them.

Optional: needs a Python with sae-lens 6 (pip install sae-lens) and the built program. Nothing is downloaded; without
the model smollm2 the bundled SAEs are checked on random rows only.

    python tools/check_saelens_roundtrip.py [--saif build/release/saif] [--model smollm2] [FOLDER...]

Both libraries compute in float32. Latents and reconstructions must agree to TOLERANCE of the row's largest value. A
latent may be active for one library only if it lies within the same tolerance of its boundary: of the smallest one
kept (top-k), of its threshold (JumpReLU), of zero; at most one such latent in 20 rows, and one more. One line per
check; exit status 1 on a mismatch.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import sae_lens
from sae_lens import SAE
from sae_lens.saes.sae import SAEMetadata

TOLERANCE = 1e-4
TEXTS = [
    "Why does the moon have phases?",
    "Tell me about the history of bread.\nAnswer in French.",
    "List three rivers and the countries that they flow through, please.",
]


class Checks:
    def __init__(self, program):
        self.program, self.failed, self.done = program, 0, 0

    def saif(self, *words):
        result = subprocess.run([self.program, *words, "--quiet"], capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(result.stderr.strip() or f"saif {words[0]}: exit status {result.returncode}")
        return result.stdout

    def say(self, name, fine, figures):
        self.done += 1
        self.failed += not fine
        print(f"{'ok  ' if fine else 'FAIL'} {name}: {figures}", flush=True)

    def run(self, name, check, *arguments):
        """check() returns (fine, figures); what it throws is a failure of this check, not of the program."""
        try:
            self.say(name, *check(*arguments))
        except Exception as error:  # whatever a library throws is the finding
            self.say(name, False, f"{type(error).__name__}: {error}")


def encode_with_saif(checks, folder, x):
    with tempfile.TemporaryDirectory() as scratch:
        rows, out = os.path.join(scratch, "x.safetensors"), os.path.join(scratch, "a.safetensors")
        save_file({"x": x}, rows)
        checks.saif("sae", "encode", folder, "--in", rows, "--out", out, "--dense", "--json", "--no-check")
        tensors = load_file(out)
    return tensors["latents"], tensors["recon"]


@torch.no_grad()
def encode_with_sae_lens(sae, x):
    latents = sae.encode(x)  # decode undoes the normalisation that encode has just measured
    # Only forward() adds a transcoder's skip connection.
    return latents, sae(x) if hasattr(sae, "W_skip") else sae.decode(latents)


def boundary(sae, latents):
    """The value below which a latent is not active: [rows, 1] or [d_sae]."""
    if sae.cfg.architecture() == "topk":
        kept = torch.where(latents > 0, latents, torch.inf).amin(dim=-1, keepdim=True)
        return torch.where(torch.isinf(kept), 0.0, kept)
    if sae.cfg.architecture() == "jumprelu":
        return sae.threshold.detach().clamp(min=0)
    return torch.zeros(1)


def relative(difference, reference):
    scale = reference.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
    return difference.abs() / scale


def compare(sae, mine, theirs):
    (a, x_a), (b, x_b) = mine, theirs
    if a.shape != b.shape or x_a.shape != x_b.shape:
        return False, f"shapes {tuple(a.shape)} and {tuple(b.shape)}, {tuple(x_a.shape)} and {tuple(x_b.shape)}"
    if not all(torch.isfinite(t).all() for t in (a, b, x_a, x_b)):
        return False, "not finite"
    both = ((a != 0) == (b != 0))
    edge = torch.where(a != 0, a, b) - boundary(sae, b)
    flips = (~both).sum().item()
    near = flips == 0 or relative(torch.where(both, 0.0, edge), b).max().item() <= TOLERANCE
    error = relative(torch.where(both, a - b, 0.0), b).max().item()
    clean = both.all(dim=-1)  # a latent at its boundary changes the whole reconstruction of its row
    recon = relative((x_a - x_b)[clean], x_b[clean]).max().item() if clean.any() else 0.0
    l0 = (b != 0).float().sum(dim=-1).mean().item()
    fine = near and error <= TOLERANCE and recon <= TOLERANCE and l0 > 0 and flips <= 1 + b.shape[0] // 20
    return fine, (f"{b.shape[0]} rows, L0 {l0:.1f}, latents off by {error:.1e}, reconstruction by {recon:.1e}, "
                  f"{flips} at their boundary")


def check_rows(checks, sae, folder, x):
    return compare(sae, encode_with_saif(checks, folder, x), encode_with_sae_lens(sae, x))


def check_again(checks, sae, scratch, x):
    """SAELens saves what it loaded; saif reads that."""
    folder = os.path.join(scratch, "again")
    sae.save_model(folder)
    return check_rows(checks, sae, folder, x)


def captured_rows(checks, model, site):
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "x.safetensors")
        prompts = [word for text in TEXTS for word in ("-p", text)]
        checks.saif("capture", model, *prompts, "--site", site, "--positions", "all", "--out", out)
        return load_file(out)[site].float()


def check_folder(checks, folder, model):
    name = os.path.basename(os.path.normpath(folder))
    try:
        sae = SAE.load_from_disk(folder, device="cpu").to(dtype=torch.float32)
    except Exception as error:
        checks.say(f"{name} loads in SAELens", False, f"{type(error).__name__}: {error}")
        return
    checks.say(f"{name} loads in SAELens", True, f"{sae.cfg.architecture()}, {sae.cfg.d_in} x {sae.cfg.d_sae}")
    random = torch.randn(64, sae.cfg.d_in, generator=torch.Generator().manual_seed(1)) * 10
    checks.run(f"{name}, random rows", check_rows, checks, sae, folder, random)
    with tempfile.TemporaryDirectory() as scratch:
        checks.run(f"{name}, saved again by SAELens", check_again, checks, sae, scratch, random)
    site = sae.cfg.metadata.hook_name
    if not model or not site:
        return
    try:
        real = captured_rows(checks, model, site)
    except RuntimeError as error:
        print(f"skip {name}, rows of {model}: {error}")
        return
    if real.shape[1] == sae.cfg.d_in:
        checks.run(f"{name}, rows of {model}", check_rows, checks, sae, folder, real)


def foreign_saes():
    """(name, SAE) made by SAELens' own classes, with weights at which every part matters."""
    size = {"d_in": 64, "d_sae": 512, "device": "cpu"}
    metadata = {"metadata": SAEMetadata(model_name="none", hook_name="blocks.0.hook_resid_post")}
    cases = [
        ("topk", sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": 16}),
        ("topk of decoder norms", sae_lens.TopKSAE, sae_lens.TopKSAEConfig,
         {"k": 16, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {}),
        ("standard", sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
    ]
    variants = [("", {}), (", b_dec not subtracted", {"apply_b_dec_to_input": False}),
                (", layer_norm", {"normalize_activations": "layer_norm"}),
                (", constant_norm_rescale", {"normalize_activations": "constant_norm_rescale"}),
                (", bfloat16", {"dtype": "bfloat16"})]
    generator = torch.Generator().manual_seed(2)
    for kind, sae_class, config_class, own in cases:
        for label, more in variants:
            sae = sae_class(config_class(**size, **own, **more, **metadata))
            for parameter, scale in (("W_enc", 0.3), ("W_dec", 0.3), ("b_enc", 0.2), ("b_dec", 0.5)):
                tensor = getattr(sae, parameter).data
                tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
            if hasattr(sae, "threshold"):
                sae.threshold.data.copy_(2 * torch.rand(size["d_sae"], generator=generator) - 0.2)
            yield kind + label, sae


def check_foreign(checks, name, sae, scratch):
    folder = os.path.join(scratch, "sae")
    sae.save_model(folder)
    about = json.loads(checks.saif("inspect", folder, "--json"))
    expected = (sae.cfg.architecture(), sae.cfg.d_in, sae.cfg.d_sae)
    if (about["architecture"], about["d_in"], about["d_sae"]) != expected:
        return False, f"saif inspect says {about['architecture']}, {about['d_in']} x {about['d_sae']}, not {expected}"
    sae = sae.to(dtype=torch.float32)
    x = 2 * torch.randn(100, sae.cfg.d_in, generator=torch.Generator().manual_seed(3))
    return check_rows(checks, sae, folder, x)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="SAE folders beside the bundled ones")
    parser.add_argument("--saif", default=os.path.join(root, "build/release/saif"), help="the built program")
    parser.add_argument("--model", default="smollm2", help="whose activations are realistic rows; '' for none")
    arguments = parser.parse_args()
    checks = Checks(arguments.saif)
    print(f"sae-lens {sae_lens.__version__}, torch {torch.__version__}, tolerance {TOLERANCE:g} of a row's largest value")
    for folder in sorted(glob.glob(os.path.join(root, "models/smollm2-135m-instruct/*/"))):
        check_folder(checks, folder, arguments.model)
    for folder in arguments.folders:
        check_folder(checks, folder, arguments.model)
    for name, sae in foreign_saes():
        with tempfile.TemporaryDirectory() as scratch:
            checks.run(f"SAELens' {name}", check_foreign, checks, name, sae, scratch)
    print(f"{checks.done - checks.failed} of {checks.done} checks passed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
