#!/usr/bin/env python3
"""Collects what tools/make_study.sh measured.

--flags NAMES SWEEP.json: the flags of the sweep's best recipe.
--around SWEEP.json: strengths around that of the best recipe.
--table STUDY.json: the README's table, every method on the test split.
--work DIR --tasks "a b" --out FILE: the committed study file: settings per task, grids, placements, claims with
their figures.
"""

import argparse
import json
import os
import sys


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def wilson(hits, n, z=1.959964):
    if n == 0:
        return [0.0, 1.0]
    p = hits / n
    middle = p + z * z / (2 * n)
    half = z * ((p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5)
    return [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]


def best_recipe(path):
    return read(path)["best"]["recipe"]


def recipe_flags(path, names):
    recipe = best_recipe(path)
    switches = [f"--{name}" for name in names if recipe[name] is True]
    return " ".join([f"--{name} {recipe[name]}" for name in names if not isinstance(recipe[name], bool)] + switches)


def around(path):
    scale = best_recipe(path)["scale"]
    return "--scale " + ",".join(f"{scale * factor:.3g}" for factor in (0.7, 1.0, 1.4))


# --- claims of the paper ---------------------------------------------------------------------------------------------


def pool(rows):
    hits, n = sum(r["strict_hits"] for r in rows), sum(r["n"] for r in rows)
    return hits, n, wilson(hits, n)


def say(rows):
    hits, n, (low, high) = pool(rows)
    return f"{hits / n:.2f} [{low:.2f}, {high:.2f}] (n = {n})" if n else "not measured"


def verdict(better, worse):
    """confirmed when the interval of the better lies above that of the worse, not confirmed when below, else mixed."""
    (_, _, a), (_, _, b) = pool(better), pool(worse)
    if a[0] > b[1]:
        return "confirmed"
    if a[1] < b[0]:
        return "not confirmed"
    return "mixed"


def evidence(shares):
    return "; ".join(f"{name} {say(rows)}" for name, rows in shares.items())


def best_share(shares, names):
    return max(names, key=lambda name: pool(shares[name])[0] / max(pool(shares[name])[1], 1))


def claim_of_k(sweeps, grids, ones):
    """Each task's best cell for each k among all that the searches tried on as many contents: every k at a strength tuned
    for it. Shares of the best of many cells are optimistic, alike for all k."""
    shares = {}
    for task, sweep in sweeps.items():
        if task not in ones:
            continue
        cells = sweep["cells"] + grids.get(task, []) + ones[task]["cells"]
        for k in (1, 5, 15, 30):
            rows = [c for c in cells if c["k"] == k and c["n"] == 16]
            if rows:
                shares.setdefault(f"k = {k}", []).append(max(rows, key=lambda c: c["strict"]))
    if "k = 1" not in shares or "k = 15" not in shares:
        return []
    return [{
        "claim": "About fifteen latents are needed, one fails",
        "verdict": verdict(shares["k = 15"], shares["k = 1"]),
        "evidence": f"strict of the best layer, ranking and strength found for each k, {len(ones)} tasks, tuning split: "
        + evidence(shares),
    }]


def claims_of_grids(grids):
    """grids: {task: cells of layer x k at the task's best other settings}, tuning split, few contents each."""
    cells = [c for rows in grids.values() for c in rows]
    if not cells:
        return []
    layers = sorted({c["layer"] for c in cells})
    layer_shares = {f"block {layer}": [c for c in cells if c["layer"] == layer and c["k"] == 15] for layer in layers}
    last = f"block {layers[-1]}"
    others = [name for name in layer_shares if name != last]
    out = [{
        "claim": "The last layer is decisive",
        "verdict": verdict(layer_shares[last], layer_shares[best_share(layer_shares, others)]),
        "evidence": f"strict at k = 15 over {len(grids)} tasks, at the strength tuned for the task's best block, tuning split: " + evidence(layer_shares),
    }]
    return out


def claim_of_beta(sweeps):
    """Cells of the last search over beta: they differ from the task's best recipe in nothing else."""
    shares = {}
    for sweep in sweeps.values():
        best = sweep["best"]["recipe"]
        same = lambda c: all(
            c[name] == best[name.replace("_", "-")] for name in ("layer", "k", "scale", "rank", "decay", "op", "norm_preserving", "placement"))
        by_beta = {}
        for c in sweep["cells"]:
            if same(c) and c["n"] > by_beta.get(c["beta"], {"n": 0})["n"]:
                by_beta[c["beta"]] = c
        if len(by_beta) > 1:
            for beta, c in by_beta.items():
                shares.setdefault(f"beta = {beta:g}", []).append(c)
    if "beta = 0" not in shares or "beta = 1" not in shares:
        return []
    return [{
        "claim": "One deviation above the mean (beta = 1) steers better than the mean (beta = 0)",
        "verdict": verdict(shares["beta = 1"], shares["beta = 0"]),
        "evidence": "strict, all else at the task's best, tuning split (strength was chosen with it): "
        + evidence(dict(sorted(shares.items()))),
    }]


def claims(sweeps, grids, tests, pres, ones):
    out = claims_of_grids(grids) + claim_of_k(sweeps, grids, ones) + claim_of_beta(sweeps)
    shared = [task for task in sweeps if task in pres]
    if shared:
        shares = {"after": [sweeps[t]["best"]["test"] for t in shared], "before": [pres[t]["best"]["test"] for t in shared]}
        out.append({
            "claim": "Latents found with the instruction after the content steer better than with it before",
            "verdict": verdict(shares["after"], shares["before"]),
            "evidence": f"strict on the test split over {len(shared)} tasks, strength tuned for each: " + evidence(shares),
        })
    prompted = {name: [r for rows in tests.values() for r in rows if r["method"] == "prompt" and r["placement"] == p]
                for name, p in (("after", "post"), ("before", "pre"))}
    if all(prompted.values()):
        out.append({
            "claim": "Prompting with the instruction after the content works better than before",
            "verdict": verdict(prompted["after"], prompted["before"]),
            "evidence": f"strict on the test split over {sum(1 for rows in tests.values() if rows)} tasks: " + evidence(prompted),
        })
    return out


# --- the study file --------------------------------------------------------------------------------------------------

KEEP = ("layer", "k", "beta", "scale", "rank", "decay", "n",
        "op", "norm_preserving", "strict", "strict_hits", "strict_ci", "checker", "perplexity")


def slim(row):
    return {key: round(row[key], 4) if isinstance(row[key], float) else row[key] for key in KEEP if key in row}


def optional(work, name, key):
    path = os.path.join(work, name + ".json")
    return read(path)[key] if os.path.exists(path) else []


def training(path):
    """What the bundled SAEs' training reported, a line per site."""
    if not path or not os.path.exists(path):
        return []
    rows = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            config = read(os.path.join(os.path.dirname(path), row["site"], "cfg.json"))
            rows.append({"site": row["site"], "d_sae": config["d_sae"], "k": config["k"],
                         **{key: round(row[key], 4) for key in ("l0", "fvu", "dead", "loss_recovered")}})
    return rows


def placements(sweep, pre, tests):
    rows = []
    if pre:
        rows += [dict(slim(sweep["best"]["test"]), label="steered, after"), dict(slim(pre["best"]["test"]), label="steered, before")]
    for row in tests:
        if row["method"] == "prompt":
            rows.append(dict(slim(row), label="prompted, after" if row["placement"] == "post" else "prompted, before"))
    return rows


def collect(work, tasks, settings, metrics):
    def maybe(name):
        path = os.path.join(work, name + ".json")
        return read(path) if os.path.exists(path) else None

    study = dict(settings, tasks=[], sweep=[], placement=[])
    sweeps, grids, tests, pres, ones = {}, {}, {}, {}, {}
    for task in tasks:
        title = read(os.path.join("data", "tasks", task + ".json"))["title"]
        sweep, own, grid = maybe(f"sweep-{task}"), maybe(f"diffmean-{task}"), maybe(f"grid-{task}")
        sweeps[task] = sweep
        best = sweep["best"]
        # Not swept: the block of the best latents, at the strength that is usual for it.
        diffmean = own["best"]["recipe"] if own else dict(best["recipe"], method="diffmean", scale=1.5, decay=0.0)
        entry = {"name": task, "saif": best["recipe"], "diffmean": diffmean,
                 "tuning": slim(best["tuning"]), "test": slim(best["test"])}
        if own:
            entry["diffmean_test"] = slim(own["best"]["test"])
        study["tasks"].append(entry)
        cells = list(sweep["cells"])
        if grid:
            # A switch that a sweep tries both ways: only the way that won.
            norm = sweep["best"]["recipe"]["norm-preserving"]
            grids[task] = [c for c in grid["cells"] if c["norm_preserving"] == norm]
            cells += grid["cells"]
        study["sweep"].append({"task": task, "title": title, "cells": [slim(c) for c in cells]})
        one = maybe(f"one-{task}")
        if one:
            ones[task] = one
            study["sweep"][-1]["cells"] += [slim(c) for c in one["cells"]]
        test = maybe(f"test-{task}")
        tests[task] = test["rows"] if test else []
        pre = maybe(f"pre-{task}")
        if pre:
            pres[task] = pre
        rows = placements(sweep, pre, tests[task])
        if len(rows) > 1:
            study["placement"].append({"task": task, "title": title, "rows": rows})
        if test:
            entry["controls"] = {r["method"] + ("_pre" if r["placement"] == "pre" else ""): slim(r) for r in test["rows"]}
    study["claims"] = claims(sweeps, grids, tests, pres, ones)
    study["training"] = training(metrics)
    return {key: value for key, value in study.items() if value != []}


def table(path):
    rows = ["| instruction | none | prompted | **saif** [95 %] | difference of means | random direction | random latents "
            "| perplexity: none, prompted, saif |",
            "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for task in read(path)["tasks"]:
        title = read(os.path.join("data", "tasks", task["name"] + ".json"))["title"]
        c = task["controls"]
        share = lambda row: f"{row['strict']:.2f}"
        low, high = c["saif"]["strict_ci"]
        rows.append(f"| {title} | {share(c['none'])} | {share(c['prompt'])} | **{share(c['saif'])}** [{low:.2f}, {high:.2f}] "
                    f"| {share(task['diffmean_test'])} | {share(c['random'])} | {share(c['random_latents'])} "
                    f"| {', '.join(str(round(c[m]['perplexity'])) for m in ('none', 'prompt', 'saif'))} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", nargs=2, metavar=("NAMES", "SWEEP"))
    parser.add_argument("--around", metavar="SWEEP")
    parser.add_argument("--table", metavar="STUDY")
    parser.add_argument("--work")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--metrics", help="what the training of the bundled SAEs reported, JSON lines")
    parser.add_argument("--contents", type=int, default=100, help="test prompts per instruction in the demo")
    parser.add_argument("--prompted", type=int, default=32, help="the same with the instruction")
    parser.add_argument("--controls", type=int, default=16, help="the same of difference of means and random controls")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.flags:
        print(recipe_flags(args.flags[1], args.flags[0].split(",")))
    elif args.table:
        print(table(args.table))
    elif args.around:
        print(around(args.around))
    else:
        settings = {
            "contents": args.contents,
            "prompted": args.prompted,
            "controls": args.controls,
            "find": {"placement": "post", "contents": 16, "variants": 8},
            "decode": {"max-tokens": 40, "repetition-penalty": 1.15},
        }
        study = collect(args.work, args.tasks.split(), settings, args.metrics)
        temporary = args.out + ".tmp"
        os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump(study, f, ensure_ascii=False, indent=1)
            f.write("\n")
        os.replace(temporary, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
