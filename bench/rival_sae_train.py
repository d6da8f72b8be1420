#!/usr/bin/env python3
"""Training steps of SAELens' own trainer beside saif's, on the same machine, in turns.

usage: rival_sae_train.py --bench build/bench/bench_sae_train [--kind topk] [--d-in 576] [--steps 2] [--rounds 2]

Optional: needs a Python with sae-lens 6. Both train on random rows in batches of 4096 with k 64 and 16,384 latents,
SAELens in float32 (its default) by SAETrainer._train_step with all threads, saif by its benchmark. One line of JSON:
tokens per second of wall-clock time of each, best round, and their ratio; the same for processor time of all threads,
which other work on the machine disturbs less.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

BATCH, D_SAE, K = 4096, 16384, 64


def rival_sae(kind, d_in, d_sae, k, l0_coefficient=1.0, **options):
    """SAELens' training SAE of a kind; k is of topk and batchtopk, l0_coefficient of jumprelu."""
    common = {"d_in": d_in, "d_sae": d_sae, **options}
    if kind == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(**common, k=k))
    if kind == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common, k=k))
    return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**common, l0_coefficient=l0_coefficient))


def measure_rival(kind, d_in, steps):
    """Seconds of wall-clock and of processor time per step, the first step left out."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, d_in)
    config = SAETrainerConfig(total_training_samples=1000 * BATCH, train_batch_size_samples=BATCH, lr=2e-4, lr_end=2e-4)
    trainer = SAETrainer(cfg=config, sae=rival_sae(kind, d_in, D_SAE, K), data_provider=iter([]))
    trainer._train_step(sae=trainer.sae, sae_in=x)
    trainer.n_training_steps = 1
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        trainer._train_step(sae=trainer.sae, sae_in=x)
        trainer.n_training_steps += 1
    return (time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps


def measure_saif(program, kind, d_in):
    name = f"sae_train_step/{kind}/{d_in}/{D_SAE}/{K}/{BATCH}/process_time/real_time"
    run = subprocess.run(
        [program, f"--benchmark_filter=^{name}$", "--benchmark_format=json", "--benchmark_min_time=0.5"],
        capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout)["benchmarks"][0]
    return figures["real_time"] / 1e3, figures["cpu_time"] / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True)
    parser.add_argument("--kind", default="topk", choices=["topk", "batchtopk", "jumprelu"])
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    theirs, ours = [], []
    for _ in range(args.rounds):
        theirs.append(measure_rival(args.kind, args.d_in, args.steps))
        ours.append(measure_saif(args.bench, args.kind, args.d_in))
    result = {"kind": args.kind, "d_in": args.d_in, "d_sae": D_SAE, "k": K, "batch": BATCH}
    for i, clock in enumerate(["wall", "processor"]):
        a, b = min(t[i] for t in theirs), min(t[i] for t in ours)
        result[clock] = {"saelens_tokens_per_s": round(BATCH / a), "saif_tokens_per_s": round(BATCH / b),
                         "ratio": round(a / b, 2)}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
