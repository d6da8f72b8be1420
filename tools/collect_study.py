#!/usr/bin/env python3
"""Collects what tools/make_study.sh measured.

--recipe SWEEP.json: the flags of the sweep's best recipe, for `saif eval`.
--best SWEEP.json: the flags that pin the other axes of a layer x k grid to the best recipe, for `saif sweep`.
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


def recipe_flags(recipe, names):
    return " ".join(f"--{name} {recipe[name]}" for name in names)


def best_recipe(path):
    return read(path)["best"]["recipe"]


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


def claims(grids, tests, pres):
    out = []
    layers = sorted({c["layer"] for cells in grids.values() for c in cells})
    if layers:
        by_layer = {layer: [c for cells in grids.values() for c in cells if c["layer"] == layer and c["k"] == 15] for layer in layers}
        rest = max(layers[:-1], key=lambda layer: pool(by_layer[layer])[0] / max(pool(by_layer[layer])[1], 1), default=layers[-1])
        out.append({
            "claim": "The last layer is decisive",
            "verdict": verdict(by_layer[layers[-1]], by_layer[rest]),
            "evidence": "strict at k = 15 over all tasks, tuning split: "
            + "; ".join(f"block {layer} {say(by_layer[layer])}" for layer in layers),
        })
        by_k = {k: [max((c for c in cells if c["k"] == k), key=lambda c: c["strict"]) for cells in grids.values() if any(c["k"] == k for c in cells)]
                for k in sorted({c["k"] for cells in grids.values() for c in cells})}
        if 1 in by_k and 15 in by_k:
            out.append({
                "claim": "About fifteen latents are needed, one fails",
                "verdict": verdict(by_k[15], by_k[1]),
                "evidence": "best layer of each task, tuning split: " + "; ".join(f"k = {k} {say(rows)}" for k, rows in by_k.items()),
            })
    post = [r for rows in tests.values() for r in rows if r["method"] == "saif"]
    pre = [r for rows in pres.values() for r in rows if r["method"] == "saif"]
    if post and pre:
        out.append({
            "claim": "Latents found with the instruction after the content steer better than with it before",
            "verdict": verdict(post, pre),
            "evidence": f"strict on the test split over all tasks: after {say(post)}; before {say(pre)}",
        })
    prompted = {p: [r for rows in tests.values() for r in rows if r["method"] == "prompt" and r["placement"] == p] for p in ("post", "pre")}
    if prompted["post"] and prompted["pre"]:
        out.append({
            "claim": "Prompting with the instruction after the content works better than before",
            "verdict": verdict(prompted["post"], prompted["pre"]),
            "evidence": f"strict on the test split over all tasks: after {say(prompted['post'])}; before {say(prompted['pre'])}",
        })
    return out


# --- the study file --------------------------------------------------------------------------------------------------

KEEP = ("layer", "k", "beta", "scale", "rank", "decay", "n", "strict", "strict_hits", "strict_ci", "checker")


def slim(row):
    return {key: round(row[key], 4) if isinstance(row[key], float) else row[key] for key in KEEP if key in row}


def optional(work, name, key):
    path = os.path.join(work, name + ".json")
    return read(path)[key] if os.path.exists(path) else []


def collect(work, tasks, settings):
    titles = {t: read(os.path.join("data", "tasks", t + ".json"))["title"] for t in tasks}
    study = dict(settings)
    study["tasks"], study["sweep"], study["placement"] = [], [], []
    grids, tests, pres = {}, {}, {}
    for task in tasks:
        sweep = read(os.path.join(work, f"sweep-{task}.json"))
        own = os.path.join(work, f"diffmean-{task}.json")
        if os.path.exists(own):
            diffmean = best_recipe(own)
        else:  # not swept: the block of the best latents, at the strength that is usual for it
            diffmean = dict(sweep["best"]["recipe"], method="diffmean", scale=1.5, decay=0.0)
        study["tasks"].append({"name": task, "saif": sweep["best"]["recipe"], "diffmean": diffmean,
                               "tuning": slim(sweep["best"]["tuning"]), "test": slim(sweep["best"]["test"])})
        grid = [c for c in optional(work, f"grid-{task}", "cells")]
        if grid:
            grids[task] = grid
        study["sweep"].append({"task": task, "title": titles[task], "cells": [slim(c) for c in sweep["cells"] + grid]})
        tests[task] = optional(work, f"test-{task}", "rows")
        pres[task] = optional(work, f"pre-{task}", "rows")
        rows = [dict(slim(r), label=f"{'steered' if r['method'] == 'saif' else 'prompted'}, {'after' if r['placement'] == 'post' else 'before'}")
                for r in tests[task] + pres[task] if r["method"] in ("saif", "prompt")]
        unique = {r["label"]: r for r in rows}
        if len(unique) > 1:
            study["placement"].append({"task": task, "title": titles[task], "rows": list(unique.values())})
    study["claims"] = claims(grids, tests, pres)
    return {key: value for key, value in study.items() if value != []}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe")
    parser.add_argument("--best")
    parser.add_argument("--work")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--contents", type=int, default=50, help="test prompts per instruction in the demo")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.recipe:
        print(recipe_flags(best_recipe(args.recipe), ("layer", "k", "beta", "scale", "rank", "decay")))
    elif args.best:
        print(recipe_flags(best_recipe(args.best), ("beta", "scale", "rank", "decay")))
    else:
        settings = {
            "contents": args.contents,
            "find": {"placement": "post", "contents": 16, "variants": 8},
            "decode": {"max-tokens": 40, "repetition-penalty": 1.15},
        }
        study = collect(args.work, args.tasks.split(), settings)
        temporary = args.out + ".tmp"
        os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump(study, f, ensure_ascii=False, indent=1)
            f.write("\n")
        os.replace(temporary, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
