"""The paper's claims, judged on a study's stored answers (docs/method.md, "Claims").

Every comparison is paired: the same task and content under two settings. Contents are the units, since one content's
answers under ten tasks are not independent: the interval is a bootstrap over contents of the mean difference. Where one
side is the best of several cells, it is chosen on half of the contents and judged on the other half, both ways round.
"""

import json
import random
import sqlite3

RESAMPLES = 4000


class Study:
    """Strict verdicts of a study's cells."""

    def __init__(self, path):
        self.db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self.loaded = {}

    def cells(self, task, split):
        """[(recipe, {content: strict})], in the order in which they were run."""
        if (task, split) not in self.loaded:
            rows = self.db.execute("SELECT key, recipe FROM cells WHERE task = ? AND split = ? ORDER BY rowid", (task, split))
            out = []
            for key, recipe in rows.fetchall():
                answers = self.db.execute("SELECT body FROM answers WHERE cell = ?", (key,)).fetchall()
                bodies = [json.loads(body) for (body,) in answers]
                out.append((json.loads(recipe), {b["content"]: bool(b["strict"]) for b in bodies}))
            self.loaded[task, split] = out
        return self.loaded[task, split]

    def find(self, task, split, contents=0, **wanted):
        """Cells on so many contents (0: any number) whose recipes have these values."""
        return [(recipe, strict) for recipe, strict in self.cells(task, split)
                if contents in (0, len(strict)) and all(same(recipe.get(k), v) for k, v in wanted.items())]


    def answers(self, task, split, contents, recipe, **changes):
        """{content: strict} of the cell of a recipe, some of its values changed; None where there is none."""
        names = ("method", "layer", "k", "rank", "placement", "op", "norm-preserving")
        wanted = {**{name: recipe[name] for name in names},
                  **{name: float(recipe[name]) for name in ("beta", "scale", "decay")}, **changes}
        found = self.find(task, split, contents, **wanted)
        return found[-1][1] if found else None


def same(found, wanted):
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return abs(found - wanted) < 1e-9
    return found == wanted


def share(cell):
    return sum(cell.values()) / len(cell)


def half(cell, part):
    """Every other content of a cell, in the order of their names."""
    names = sorted(cell)[part::2]
    return {name: cell[name] for name in names}


def cross_fitted(cells):
    """{content: strict} of the best of several cells, which is chosen on the contents that are not looked at."""
    out = {}
    for part in (0, 1):
        best = max(cells, key=lambda cell: share(half(cell, 1 - part)))
        out.update(half(best, part))
    return out


def difference(pairs):
    """pairs: {task: (first, second)} -> mean difference and its 95 % interval, contents drawn with replacement."""
    by_content = {}
    for first, second in pairs.values():
        for content in first.keys() & second.keys():
            by_content.setdefault(content, []).append(int(first[content]) - int(second[content]))
    contents = sorted(by_content)
    rng = random.Random(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = [x for content in rng.choices(contents, k=len(contents)) for x in by_content[content]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    every = [x for xs in by_content.values() for x in xs]
    return sum(every) / len(every), (means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]), len(contents)


def verdict(interval):
    return "confirmed" if interval[0] > 0 else "not confirmed" if interval[1] < 0 else "mixed"


def claim(text, pairs, first, second, detail):
    """One row of the report's table; pairs as in `difference`, their names, and what was held equal."""
    mean, (low, high), contents = difference(pairs)
    shares = [sum(share(pair[i]) for pair in pairs.values()) / len(pairs) for i in (0, 1)]
    return {
        "claim": text,
        "verdict": verdict((low, high)),
        "evidence": f"strict {first} {shares[0]:.2f}, {second} {shares[1]:.2f}: difference {mean:+.2f} [{low:+.2f}, {high:+.2f}], "
        f"{len(pairs)} tasks on the same {contents} contents; {detail}",
    }


def claim_of_k(study, tasks):
    pairs, cells_of = {}, {1: 0, 15: 0}
    for task in tasks:
        found = {k: [strict for _, strict in study.find(task, "tuning", 16, method="saif", placement="post", k=k)] for k in (1, 15)}
        if all(found.values()):
            pairs[task] = (cross_fitted(found[15]), cross_fitted(found[1]))
            for k in cells_of:
                cells_of[k] += len(found[k])
    if not pairs:
        return []
    return [claim("About fifteen latents are needed, one fails", pairs, "of fifteen latents", "of one",
                  "the best layer, ranking, edit and strength of each, chosen on half of the tuning contents and judged on the other "
                  f"({cells_of[15]} cells of fifteen, {cells_of[1]} of one)")]


def claim_of_layer(study, tasks, grids):
    """grids: {task: cells of layer x k at the task's best other settings}."""
    layers = sorted({c["layer"] for cells in grids.values() for c in cells})
    pairs = {}
    for task in tasks:
        cells = {}
        for c in grids.get(task, []):
            if c["k"] != 15:
                continue
            stored = study.answers(task, "tuning", 16, {**c, "norm-preserving": c["norm_preserving"]})
            if stored:
                cells[c["layer"]] = stored
        if len(cells) == len(layers):
            pairs[task] = (cells.pop(layers[-1]), cross_fitted(list(cells.values())))
    if not pairs:
        return []
    return [claim("The last layer is decisive", pairs, f"at the last block that has an SAE ({layers[-1]})", "at the best other",
                  "k = 15, all else at the task's best, which was found at blocks 18 to 26; the other block is chosen on half of the "
                  "contents and judged on the other")]


def claim_of_beta(study, tasks, sweeps):
    """Cells that differ from the task's best recipe in beta alone."""
    pairs = {}
    for task in tasks:
        best = sweeps[task]["best"]["recipe"]
        sides = [study.answers(task, "tuning", 16, best, beta=beta) for beta in (1.0, 0.0)]
        if all(sides):
            pairs[task] = tuple(sides)
    if len(pairs) < 3:  # the search met both values at the best of the rest in too few tasks to say anything
        return []
    return [claim("One deviation above the mean (beta = 1) steers better than the mean (beta = 0)", pairs, "at beta = 1", "at beta = 0",
                  "all else at the task's best, tuning split; strength was chosen with beta")]


def claim_of_placement(study, tasks, sweeps, pres):
    pairs = {}
    for task in tasks:
        if task not in pres:
            continue
        sides = [study.answers(task, "test", result["best"]["test"]["n"], result["best"]["recipe"])
                 for result in (sweeps[task], pres[task])]
        if all(sides):
            pairs[task] = tuple(sides)
    if not pairs:
        return []
    return [claim("Latents found with the instruction after the content steer better than with it before", pairs, "found after",
                  "found before", "test split, strength tuned for each")]


def claim_of_prompting(final, tasks):
    pairs = {}
    for task in tasks:
        sides = [final.find(task, "test", method="prompt", placement=p) for p in ("post", "pre")]
        if all(sides):
            pairs[task] = tuple(side[-1][1] for side in sides)
    if not pairs:
        return []
    return [claim("Prompting with the instruction after the content works better than before", pairs, "after", "before",
                  "test split")]


def claims(work, tasks, sweeps, grids, pres):
    study, final = (Study(f"{work}/{name}/results.sqlite") for name in ("study", "final"))
    return (claim_of_layer(study, tasks, grids) + claim_of_k(study, tasks) + claim_of_beta(study, tasks, sweeps) +
            claim_of_placement(study, tasks, sweeps, pres) + claim_of_prompting(final, tasks))
