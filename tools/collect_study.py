#!/usr/bin/env python3
"""Collects what tools/make_study.sh measured.

--flags NAMES SWEEP.json: the flags of the sweep's best recipe.
--around SWEEP.json: strengths around that of the best recipe.
--table STUDY.json: the README's table, every method on the test split.
--verdicts STUDY.json: where saif and the other methods differ there.
--work DIR --tasks "a b" --out FILE: the committed study file: settings per task, grids, placements, claims with
their figures.
"""

import argparse
import json
import os
import sys

import study_claims


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def best_recipe(path):
    return read(path)["best"]["recipe"]


def recipe_flags(path, names):
    recipe = best_recipe(path)
    switches = [f"--{name}" for name in names if recipe[name] is True]
    return " ".join([f"--{name} {recipe[name]}" for name in names if not isinstance(recipe[name], bool)] + switches)


def around(path):
    scale = best_recipe(path)["scale"]
    return "--scale " + ",".join(f"{scale * factor:.3g}" for factor in (0.7, 1.0, 1.4))


# --- the study file --------------------------------------------------------------------------------------------------

KEEP = ("layer", "k", "beta", "scale", "rank", "decay", "n",
        "op", "norm_preserving", "strict", "strict_hits", "strict_ci", "checker", "perplexity", "against_saif")


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def slim(row):
    return {key: rounded(row[key]) for key in KEEP if key in row}


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
    sweeps, grids, pres = {}, {}, {}
    for task in tasks:
        title = read(os.path.join("data", "tasks", task + ".json"))["title"]
        sweep, grid, one, pre = (maybe(f"{name}-{task}") for name in ("sweep", "grid", "one", "pre"))
        saif, diffmean, test = (read(os.path.join(work, f"{name}-{task}.json")) for name in ("final-saif", "final-diffmean", "test"))
        sweeps[task] = sweep
        study["tasks"].append({
            "name": task, "saif": saif["best"]["recipe"], "diffmean": diffmean["best"]["recipe"],
            "tuning": slim(saif["best"]["tuning"]), "test": slim(saif["best"]["test"]),
            "controls": {r["method"] + ("_pre" if r["placement"] == "pre" else ""): slim(r) for r in test["rows"]}})
        cells = list(sweep["cells"])
        if grid:
            # A switch that a sweep tries both ways: only the way that won.
            norm = sweep["best"]["recipe"]["norm-preserving"]
            grids[task] = [c for c in grid["cells"] if c["norm_preserving"] == norm]
            cells += grid["cells"]
        if one:
            cells += one["cells"]
        study["sweep"].append({"task": task, "title": title, "cells": [slim(c) for c in cells]})
        if pre:
            pres[task] = pre
        study["placement"].append({"task": task, "title": title, "rows": placements(sweep, pre, test["rows"])})
    study["claims"] = study_claims.claims(work, tasks, sweeps, grids, pres)
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
                    f"| {share(c['diffmean'])} | {share(c['random'])} | {share(c['random_latents'])} "
                    f"| {', '.join(str(round(c[m]['perplexity'])) for m in ('none', 'prompt', 'saif'))} |")
    return "\n".join(rows)


def names_of(titles):
    return ", ".join(titles[:-1]) + " and " + titles[-1] if len(titles) > 1 else titles[0] if titles else "no task"


def verdicts(path):
    """Where saif and another method differ on the same prompts: McNemar's p, Benjamini-Hochberg over the tasks, < .05."""
    lines = []
    tasks = read(path)["tasks"]
    for method, name in (("prompt", "prompting"), ("diffmean", "a difference of means"), ("random", "a random direction"),
                         ("random_latents", "random latents")):
        rows = [(t["name"], t["controls"][method]["against_saif"]) for t in tasks]
        ordered = sorted(rows, key=lambda row: row[1]["mcnemar_p"])
        below = [i for i, (_, a) in enumerate(ordered) if a["mcnemar_p"] <= 0.05 * (i + 1) / len(ordered)]
        found = ordered[:max(below) + 1] if below else []
        ahead = [n for n, a in rows if (n, a) in found and a["difference"] > 0]
        behind = [n for n, a in rows if (n, a) in found and a["difference"] < 0]
        open_ = [n for n, a in rows if (n, a) not in found]
        lines.append(f"against {name}: ahead on {names_of(ahead)}; behind on {names_of(behind)}; no difference shown on {names_of(open_)}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", nargs=2, metavar=("NAMES", "SWEEP"))
    parser.add_argument("--around", metavar="SWEEP")
    parser.add_argument("--table", metavar="STUDY")
    parser.add_argument("--verdicts", metavar="STUDY")
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
    elif args.verdicts:
        print(verdicts(args.verdicts))
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
