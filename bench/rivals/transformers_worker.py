#!/usr/bin/env python3
"""Transformers' side of the comparison: one process holds a model and answers requests, one JSON line each way.

usage: transformers_worker.py FOLDER [--threads N]

First line out: {"load_seconds": from_pretrained until the first token after a prompt of 8, ...}. Then for each line
{"row": NAME, "seconds": about so long, ...} in, a line {"value": ...} out, in the unit of saif's row of that name.
All in bfloat16 under inference_mode, logits of the last token only.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
import transformers

SHORT = 8           # tokens before decoding
MOST_STEPS = 64     # of one run of decoding
SWEEP_ROWS = 120    # sequences of a batch: 60 settings of 2 contents
DISCOVERY_ROWS = 32


class Found(Exception):
    """The activations wanted are there: the rest of the forward pass is not needed."""


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


class Worker:
    def __init__(self, folder, threads):
        torch.set_num_threads(threads)
        torch.manual_seed(7)
        transformers.logging.set_verbosity_error()
        start = time.perf_counter()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.config = self.model.config
        with torch.inference_mode():
            self.model(self.ids(1, SHORT), logits_to_keep=1, use_cache=True).logits[:, -1].argmax(-1).item()
        self.load_seconds = time.perf_counter() - start

    def about(self):
        return {"load_seconds": self.load_seconds, "torch": torch.__version__,
                "transformers": transformers.__version__, "attention": self.config._attn_implementation,
                "threads": torch.get_num_threads()}

    def ids(self, rows, tokens):
        return torch.randint(0, self.config.vocab_size, (rows, tokens))

    def layer(self, number):
        return self.model.model.layers[number]

    # --- rows -------------------------------------------------------------------------------------------------------

    def prefill(self, tokens, seconds):
        x = self.ids(1, tokens)
        times = []
        while not times or sum(times) < seconds:
            times.append(clock(lambda: self.model(x, logits_to_keep=1, use_cache=True)))
        return {"value": tokens / statistics.median(times)}

    def decode(self, rows, seconds, at_least=4):
        x = self.ids(rows, SHORT)
        out = self.model(x, logits_to_keep=1, use_cache=True)
        cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
        steps, start = 0, time.perf_counter()
        while steps < at_least or (steps < MOST_STEPS and time.perf_counter() - start < seconds):
            out = self.model(token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            steps += 1
        return {"value": rows * steps / (time.perf_counter() - start), "steps": steps}

    def memory(self, weights_mb):
        """Peak less the weights; meant to be the first request."""
        self.prefill(512, 0)
        self.decode(1, 0, 16)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-6
        return {"value": peak - weights_mb, "peak_mb": peak}

    def discovery(self, job_file, prompts_file):
        job, prompts = json.load(open(job_file)), json.load(open(prompts_file))
        number = int(job["site"].split(".")[1])
        d, latents = self.config.hidden_size, job["d_sae"]
        w = torch.rand(latents, d) * (12 / d) ** 0.5 - 0.5 * (12 / d) ** 0.5
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found = []

        def hook(module, args, output):
            found.append(output[0] if isinstance(output, tuple) else output)
            raise Found

        def run(indices):
            lengths = torch.tensor([len(prompts[i]) for i in indices])
            x = torch.zeros(len(indices), int(lengths.max()), dtype=torch.long)
            mask = torch.zeros_like(x)
            for r, i in enumerate(indices):
                x[r, :len(prompts[i])] = torch.tensor(prompts[i])
                mask[r, :len(prompts[i])] = 1
            try:
                self.model(x, attention_mask=mask, use_cache=False)
            except Found:
                pass
            h = found.pop()[torch.arange(len(indices)), lengths - 1].float()
            a = h @ w.T
            return (a * (a > 2.66 * h.pow(2).mean().sqrt())).count_nonzero().item()

        handle = self.layer(number).register_forward_hook(hook)
        run(order[:1])
        active = 0

        def all_of_them():
            nonlocal active
            for at in range(0, len(order), DISCOVERY_ROWS):
                active += run(order[at:at + DISCOVERY_ROWS])

        seconds = clock(all_of_them)
        handle.remove()
        return {"value": seconds, "l0": active / len(prompts), "tokens": sum(map(len, prompts))}

    def sweep(self, contents, settings, prompt_tokens, new_tokens):
        prompts = self.ids(contents, prompt_tokens)
        vectors = 0.1 * torch.randn(settings, self.config.hidden_size)
        cells = [(c, s) for c in range(contents) for s in range(settings)]
        added = None

        def hook(module, args, output):
            h = output[0] if isinstance(output, tuple) else output
            h[:, -1] = (h[:, -1].float() + added).to(h.dtype)
            return output

        handle = self.layer(self.config.num_hidden_layers * 4 // 5).register_forward_hook(hook)

        def all_of_them():
            nonlocal added
            for at in range(0, len(cells), SWEEP_ROWS):
                part = cells[at:at + SWEEP_ROWS]
                added = vectors[[s for _, s in part]]
                x = prompts[[c for c, _ in part]]
                self.model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=new_tokens,
                                    min_new_tokens=new_tokens, do_sample=False)

        seconds = clock(all_of_them)
        handle.remove()
        return {"value": seconds, "batch": SWEEP_ROWS}

    def answer(self, request):
        row = request.pop("row")
        word, _, number = row.partition(" ")
        if word in ("prefill", "decode"):
            return getattr(self, word)(int(number), request["seconds"])
        return getattr(self, row)(**request)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    worker = Worker(args.folder, args.threads)
    print(json.dumps(worker.about()), flush=True)
    for line in sys.stdin:
        with torch.inference_mode():
            print(json.dumps(worker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
