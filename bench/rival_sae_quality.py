#!/usr/bin/env python3
"""What an SAE explains after the same number of tokens, trained by SAELens' own trainer and by saif.

usage: rival_sae_quality.py --saif build/release/saif --corpus documents.jsonl [--site blocks.24.hook_resid_post]
                            [--kinds topk,batchtopk,jumprelu] [--programs saif,saelens] [--lrs 0.0016,0.0032,0.0064]
                            [--documents 3000] [--d-sae 4096] [--k 32] [--work FOLDER]

Optional: needs a Python with sae-lens 6. The corpus is JSON lines with "text". One tenth of the documents is kept for
the figures: both SAEs are loaded by SAELens there and compared by the fraction of variance unexplained,
sum |x - x'|^2 / sum |x - mean|^2, and L0, over the same rows. Both train on every other row once, in batches of 1,024, with
their defaults but for the learning rate: the same number means different steps to the two, since their weights start at
other scales, so each is trained at all of --lrs and judged by its best. One line of JSON per training.
"""

import argparse
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import torch
from safetensors.torch import load_file
from rival_sae_train import rival_sae
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

BATCH, CONTEXT = 1024, 160
SCALING = 1000  # SAELens' own number
MARKS = re.compile(r"<\|\w+\|>")  # of chat templates: as text, not as tokens, they would be the same for nobody


def captured(args, documents, name):
    """Rows of the site without each document's first token, [tokens, d_in]."""
    lines, path = args.work / f"{name}.jsonl", args.work / f"{name}.safetensors"
    if not path.is_file():
        lines.write_text("\n".join(json.dumps({"text": text}) for text in documents) + "\n")
        subprocess.run([args.saif, "capture", "smollm2", "--file", lines, "--site", args.site, "--out", path, "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)
    tensors = load_file(path)
    rows, offsets = tensors[args.site], tensors["row_offsets"].tolist()
    return torch.cat([rows[a + 1:min(b, a + CONTEXT)] for a, b in zip(offsets, offsets[1:])]).float()


def train_rival(kind, rows, lr, args):
    torch.manual_seed(0)
    steps = len(rows) // BATCH
    order = torch.randperm(len(rows))[:steps * BATCH].view(steps, BATCH)
    sae = rival_sae(kind, rows.shape[1], args.d_sae, args.k, args.l0_coefficient,
                    normalize_activations="expected_average_only_in")
    config = SAETrainerConfig(total_training_samples=steps * BATCH, train_batch_size_samples=BATCH, lr=lr,
                              lr_end=lr / 10, lr_warm_up_steps=steps // 50, lr_decay_steps=steps // 5)
    # The scale of the rows is estimated from the first SCALING batches, which are not trained on.
    batches = (rows[order[i % steps]] for i in range(SCALING + steps))
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches)
    trainer.fit()
    folder = args.work / f"saelens-{kind}"
    sae.save_inference_model(folder)
    return folder


def train_saif(kind, file, tokens, lr, args):
    out = args.work / f"saif-{kind}"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([args.saif, "sae", "train", "--model", "smollm2", "--corpus", file, "--site", args.site, "--kind", kind,
                    "--d-sae", str(args.d_sae), "--k", str(args.k), "--batch", str(BATCH), "--lr", str(lr), "--epochs",
                    "1", "--max-tokens", str(tokens), "--context", str(CONTEXT), "--held-out", "0.002", "--save-dtype",
                    "f32", "--out", out, "--json", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return next(p.parent for p in sorted(out.rglob("cfg.json")))


@torch.no_grad()
def quality(folder, rows):
    sae = SAE.load_from_disk(str(folder))
    wrong = active = 0.0
    for x in rows.split(4096):
        latents = sae.encode(x)
        wrong += (x - sae.decode(latents)).square().sum().item()
        active += (latents > 0).sum().item()
    return {"fvu": round(wrong / (rows - rows.mean(0)).square().sum().item(), 4), "l0": round(active / len(rows), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saif", default="build/release/saif")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--site", default="blocks.24.hook_resid_post")
    parser.add_argument("--kinds", default="topk,batchtopk,jumprelu")
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--programs", default="saif,saelens")
    parser.add_argument("--lrs", default="0.0016,0.0032,0.0064")
    parser.add_argument("--l0-coefficient", type=float, default=1.0, help="of SAELens' jumprelu")
    parser.add_argument("--work", type=Path, default=Path("build/sae-quality"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    with open(args.corpus, encoding="utf-8") as f:
        texts = [MARKS.sub("", json.loads(line)["text"]) for _, line in zip(range(args.documents), f)]
    n_test = len(texts) // 10
    test, train = captured(args, texts[:n_test], "test"), captured(args, texts[n_test:], "train")
    tokens = len(train) // BATCH * BATCH
    for kind, program, lr in itertools.product(args.kinds.split(","), args.programs.split(","), args.lrs.split(",")):
        if program == "saif":
            folder = train_saif(kind, args.work / "train.jsonl", tokens, float(lr), args)
        else:
            folder = train_rival(kind, train, float(lr), args)
        print(json.dumps({"kind": kind, "program": program, "lr": float(lr), "tokens": tokens, "d_sae": args.d_sae,
                          **quality(folder, test)}), flush=True)


if __name__ == "__main__":
    main()
