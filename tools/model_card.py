#!/usr/bin/env python3
"""Writes the model card of the bundled SAEs from what training and evaluation measured."""

import argparse
import json
import os
import sys

CARD = """# SAEs of SmolLM2-135M-Instruct

Top-k sparse autoencoders of the residual stream (`hook_resid_post`) of SmolLM2-135M-Instruct (Apache-2.0), in SAELens 6
format, bfloat16, made for this project. One folder per block.

{table}

Measured on held-out documents of the same corpus, the first token of every document left out. FVU: fraction of variance
unexplained. Loss recovered: (CE_zero - CE_sae) / (CE_zero - CE_clean) with the reconstruction spliced in.

**Data.** {documents} documents of {tokens:,} tokens, all written by the model itself: our own prompts (`data/corpus`:
subjects x question forms x about twenty kinds of instruction in several phrasings, before and after the content; about
40 % without an instruction), answered at temperature 0.8, top-p 0.95. No foreign text. The system prompt that every
document begins with is computed once per pass, so that training saw {rows:,} distinct activations per epoch.

**Recipe.** `make saes` (tools/make_saes.sh) reproduces them: `saif sae train --kind topk {command}`.
The algorithm is in [docs/sae_training.md](../../docs/sae_training.md).

**Use.** `Sae::load`, `saif sae encode`, or SAELens' own loader. They are bundled for the demo; they are small and were
trained briefly, so expect coarse latents.

**Licence.** Apache-2.0, as the model and this project.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", required=True, help="JSON lines of `saif sae train --json`")
    parser.add_argument("--documents", required=True)
    parser.add_argument("--command", default="", help="the options of the training command")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    with open(args.documents, encoding="utf-8") as lines:
        documents = sum(1 for _ in lines)
    rows = ["| site | latents | active | FVU | explained variance | dead | loss recovered |",
            "|---|--:|--:|--:|--:|--:|--:|"]
    with open(args.metrics, encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            m = json.loads(line)
            tokens, activations = m["corpus_tokens"], m["rows"]
            with open(os.path.join(os.path.dirname(args.out), m["site"], "cfg.json"), encoding="utf-8") as f:
                config = json.load(f)
            rows.append(f"| `{m['site']}` | {config['d_sae']} | {m['l0']:.1f} | {m['fvu']:.3f} | {1 - m['fvu']:.3f} "
                        f"| {100 * m['dead']:.1f} % | {m['loss_recovered']:.3f} |")
    card = CARD.format(table="\n".join(rows), documents=documents, tokens=tokens, rows=activations, command=args.command)
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
