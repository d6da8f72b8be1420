"""A page of docs/ and its plot, from the figures of its JSON file."""

import math
from statistics import median

SHAPES = {"135m": ("135M", "SmolLM2-135M"), "1b": ("1B", "Llama-3.2-1B"), "2.6b": ("2.6B", "Gemma-2-2B")}
TYPES = {"bf16": "bf16", "q8_0": "Q8_0", "q4_k_m": "Q4_K_M"}
RIVALS = ("llama.cpp", "transformers")
OWN = ("saif", "saif tuned")
ROWS = {
    "prefill 64": ("prefill, 64 tokens", "tok/s"), "prefill 512": ("prefill, 512 tokens", "tok/s"),
    "prefill 2048": ("prefill, 2,048 tokens", "tok/s"), "decode 1": ("decode, 1 row", "tok/s"),
    "decode 8": ("decode, 8 rows", "tok/s"), "decode 32": ("decode, 32 rows", "tok/s"),
    "decode 128": ("decode, 128 rows", "tok/s"), "load warm": ("first token, file in memory", "s"),
    "load cold": ("first token, file on disk", "s"), "memory": ("memory beyond the weights", "MB"),
    "discovery": ("discovery job", "s"), "sweep": ("steering sweep, 600 cells", "s")}


def number(x):
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def best(row, entry, programs):
    """(median, name) of the program that does best; None where none was measured."""
    found = [(median(entry[name]), name) for name in programs if name in entry]
    if not found:
        return None
    return (max if ROWS[row][1] == "tok/s" else min)(found)


def ratio(row, entry, own=OWN):
    """(how much better saif's better mode is than the better rival, that rival's name); None where there is no pair."""
    mine, rival = best(row, entry, own), best(row, entry, RIVALS)
    if mine is None or rival is None:
        return None
    if ROWS[row][1] == "tok/s":
        return mine[0] / rival[0], rival[1]
    return (rival[0] / mine[0] if mine[0] > 0 else math.inf), rival[1]


def entries(results):
    """(shape, type, row, entry, ratio) in the order of the page."""
    for shape in SHAPES:
        for kind in TYPES:
            for row in ROWS:
                entry = results["rows"].get(f"{shape} {kind} {row}")
                if entry and best(row, entry, OWN):
                    yield shape, kind, row, entry, ratio(row, entry)


def cell(values):
    if not values:
        return "-"
    middle, low, high = number(median(values)), number(min(values)), number(max(values))
    return middle if low == high else f"{middle} [{low}, {high}]"


def share(entry, row):
    if "roof" not in entry or "saif" not in entry:
        return ""
    pairs = [(v / r if ROWS[row][1] == "tok/s" else r / v) for v, r in zip(entry["saif"], entry["roof"])]
    return f"{100 * median(pairs):.0f} %"


def times(found):
    if found is None:
        return "-"
    return "none needed" if math.isinf(found[0]) else f"{found[0]:.2f}"


def table(results, shape):
    lines = ["| weights | row | unit | saif | of its roof | saif tuned | llama.cpp | Transformers | saif / best rival |",
             "|---|---|---|---|---|---|---|---|---|"]
    for s, kind, row, entry, found in entries(results):
        if s != shape:
            continue
        cells = [TYPES[kind], ROWS[row][0], ROWS[row][1], cell(entry.get("saif")), share(entry, row),
                 cell(entry.get("saif tuned")), cell(entry.get("llama.cpp")), cell(entry.get("transformers")), times(found)]
        if found and found[0] <= 1:
            cells = [f"**{c}**" if c not in ("", "-") else c for c in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else "Not measured."


def summary(results):
    compared = [(shape, kind, row, found) for shape, kind, row, _, found in entries(results) if found]
    behind = [e for e in compared if e[3][0] <= 1]
    exact = [f for _, _, row, entry, _ in entries(results) if (f := ratio(row, entry, ("saif",)))]
    text = (f"saif is ahead of the better rival in {len(compared) - len(behind)} of {len(compared)} rows, as it comes, "
            f"without options, in {sum(f[0] > 1 for f in exact)}.")
    if behind:
        text += " It is not ahead in:\n\n" + "\n".join(
            f"* **{SHAPES[s][0]} {TYPES[k]}, {ROWS[r][0]}: {times(found)} of {found[1]}**" for s, k, r, found in behind)
    return text


def roofs(results):
    rounds = [r for unit in results.get("doctor", {}).values() for r in unit]
    if not rounds:
        return ""

    def spread(key):
        values = [r[key] for r in rounds]
        return f"{median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"

    return (f"Roofs by `saif doctor` before every round: bf16 products {spread('gemm_bf16_gflops')} GFLOP/s, f32 "
            f"products {spread('gemm_f32_gflops')} GFLOP/s, memory reads {spread('read_gbps')} GB/s.")


def about(results):
    m, v = results.get("machine", {}), dict(results.get("versions", {}))
    for note in results.get("notes", {}).values():
        found = note.get("transformers", {})
        v.update({k: found[k] for k in ("torch", "transformers") if k in found})
    dates = sorted({e["when"] for e in results["rows"].values() if "when" in e})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "never"
    programs = ", ".join(f"{name} {version}" for name, version in v.items())
    return (f"Machine: {m.get('cpu', '?')}, {m.get('threads', '?')} threads, {m.get('memory_gb', '?')} GB, "
            f"{m.get('system', '?')}; saif's kernels: {m.get('kernels', '?')}, oneDNN {m.get('onednn', '?')}. "
            f"Programs: {programs}. Measured {when}.")


def flash(results):
    parts = []
    for unit, note in results.get("notes", {}).items():
        chosen = note.get("flash attention (prefill, decode)")
        if chosen:
            shape, kind = unit.split()
            parts.append(f"{SHAPES[shape][0]} {TYPES[kind]} {'/'.join('on' if c else 'off' for c in chosen)}")
    return "; ".join(parts) if parts else "not measured"


def build(results):
    flags = results.get("llama_flags")
    return f"{flags} (what -march=native made did not run every row on this machine)" if flags else "-march=native"


def text(results, name="benchmarks"):
    return f"""# saif beside llama.cpp and Transformers

Written by `make bench-rivals` from [{name}.json]({name}.json); do not edit. One call of it measures all programs
on the same weights in turn (saif, llama.cpp, Transformers, and again). Cells are the median of the rounds [smallest,
largest]. The last column is above 1 where saif is ahead of the better rival: the rate of its better mode over theirs, or
their time or memory over its. A row in which saif is not ahead is in **bold**.

{summary(results)}

![How many times as fast as the better rival]({name}.svg)

{about(results)}

{roofs(results)}

## 135M, the shape of SmolLM2-135M

{table(results, "135m")}

## 1B, the shape of Llama-3.2-1B

{table(results, "1b")}

## 2.6B, the shape of Gemma-2-2B

{table(results, "2.6b")}

## How

* Weights: random numbers, drawn once (bench/rivals/models.py). bf16 is one GGUF file for saif and llama.cpp and the same
  numbers as safetensors for Transformers, which has no Q8_0 and Q4_K_M to run in; those are made by `llama-quantize`,
  and both programs read the same file.
* Threads: one per core, for every program. saif as it comes. llama.cpp out of llama-cpp-python's source distribution,
  built with {build(results)}, micro-batches of 512, flash attention where it is faster (prefill/decode: {flash(results)}).
  Transformers in bfloat16 under inference mode, the attention it chooses, key-value cache, logits of the last token only.
* saif multiplies quantised weights with activations of full width: where they lie in the file in decoding 1 and 8 rows, the
  first token and memory, as `saif run` does; widened to bfloat16 at load in the other rows, as its study verbs do, unless
  that took more than 4 GiB (2.6B), where they stay.
* saif tuned is `--weights resident --kv bf16` (matrices copied into huge pages at load, keys and values in bfloat16), and
  for one row of Q8_0 and Q4_K_M also `--quantised int8` where that is faster: activations rounded to 8 bits, as llama.cpp
  always has them with these types. Memory: `--kv bf16` alone.
* Prefill: a prompt of random tokens up to its next token, `llama-bench -p`. Decode: sequences that go on from 8 tokens
  each, `llama-bench -n` and `llama-batched-bench`. Runs within a round last about half a second, at least one, after a
  warm-up; their median or mean counts, the best of them never does.
* Share of the roof: see [bench.md](bench.md). The roof is that of the type's products or of reading the weights once per
  step, whichever is lower.
* First token: from the start of the process to the end of one that reads a prompt of 8 tokens; for Transformers without
  what importing it takes (seconds more). "On disk": after the file was dropped from the page cache.
* Memory: the most that was resident during 512 tokens of prefill and 16 of decoding, less the size of the weights' file;
  keys and values are in it. Transformers' part holds torch itself.
* Discovery job: [bench.md](bench.md). Transformers gets the same prompts sorted by length in padded batches of 32, a hook at the
  site, leaves the forward pass there, and encodes with the same kind of SAE. llama.cpp shows no hidden states.
* Steering sweep: 10 prompts of 48 tokens, 60 vectors at one layer, 32 new tokens for each of the 600 pairs. saif runs
  them in one call; Transformers' `generate` in batches of 120 rows with a hook that adds to each row its vector;
  llama.cpp takes one vector at a time, so its figure is 60 times what 10 sequences take (without any vector).
"""


BRIEF_ROWS = ("prefill 512", "decode 1", "decode 32")


def brief_cell(row, entry):
    """saif / saif tuned / llama.cpp / Transformers, the best of them in bold."""
    _, winner = best(row, entry, OWN + RIVALS)
    cells = [number(median(entry[name])) if entry.get(name) else "-" for name in OWN + RIVALS]
    return " / ".join(f"**{c}**" if name == winner else c for name, c in zip(OWN + RIVALS, cells))


def brief(results):
    """The README's part."""
    head = ("tokens per second", *(ROWS[row][0] for row in BRIEF_ROWS))
    lines = ["saif as it comes / saif tuned (`--weights resident --kv bf16`, one row perhaps with `--quantised int8`) / "
             "llama.cpp /", f"Transformers, medians of runs in turn on the same weights on {where(results)}:", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for shape in SHAPES:
        for kind in TYPES:
            found = [results["rows"].get(f"{shape} {kind} {row}", {}) for row in BRIEF_ROWS]
            if any(found):
                cells = [brief_cell(row, entry) if entry else "-" for row, entry in zip(BRIEF_ROWS, found)]
                lines.append(f"| {SHAPES[shape][0]} {TYPES[kind]} | " + " | ".join(cells) + " |")
    lines += ["", summary(results)]
    return "\n".join(lines)


def where(results):
    m = results.get("machine", {})
    kernels = m.get("kernels", "?").removeprefix("cpu (").removesuffix(")")
    return f"{m.get('threads', '?')} cores of an {m.get('cpu', '?').removesuffix(' Processor')} ({kernels})"


def with_brief(readme, results, name="benchmarks"):
    """The README's text with this machine's part written anew; as it was where it has none."""
    marks = [f"<!-- bench/rivals {name}: {mark} -->" for mark in ("begin", "end")]
    if marks[0] not in readme:
        return readme
    begin, end = readme.index(marks[0]) + len(marks[0]), readme.index(marks[1])
    return readme[:begin] + "\n" + brief(results) + "\n" + readme[end:]


# --- plot -------------------------------------------------------------------------------------------------------------

COLOURS = {"bf16": "#1f5fa8", "q8_0": "#d1771b", "q4_k_m": "#3b8f4a"}
WIDTH, LEFT, TOP, STEP, GAP = 1000, 214, 64, 30, 22


def bounds(found):
    low = min([r for r in found if r > 0 and not math.isinf(r)] + [0.9])
    high = max([r for r in found if not math.isinf(r)] + [1.1])
    return math.log(low / 1.12), math.log(high * 1.12)


def ticks(low, high):
    marks = [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)]
    return [m for m in marks if low <= math.log(m) <= high]


def plot(results):
    """One column per size, one line per row, a mark per type: how many times as fast as the better rival."""
    found = {(s, k, r): f[0] for s, k, r, _, f in entries(results) if f and not math.isinf(f[0])}
    rows = [r for r in ROWS if any(key[2] == r for key in found)]
    low, high = bounds(found.values())
    panel = (WIDTH - LEFT - 20 - 2 * GAP) / 3
    height = TOP + STEP * max(len(rows), 1) + 48
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
           f'font-size="13" fill="#222">', f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>']

    def words(x, y, content, anchor="start", extra=""):
        out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{content}</text>')

    for i, (kind, colour) in enumerate(COLOURS.items()):
        out.append(f'<circle cx="{LEFT + 8 + 90 * i}" cy="20" r="5" fill="{colour}"/>')
        words(LEFT + 19 + 90 * i, 24.5, TYPES[kind])
    words(WIDTH - 20, 24.5, "hollow: not ahead", "end")
    for i, row in enumerate(rows):
        words(LEFT - 10, TOP + STEP * (i + 0.5) + 4.5, ROWS[row][0], "end")
    bottom = TOP + STEP * len(rows)
    for p, (shape, (size, name)) in enumerate(SHAPES.items()):
        left = LEFT + p * (panel + GAP)

        def at(r):
            return left + panel * (math.log(r) - low) / (high - low)

        words(left + panel / 2, TOP - 10, f"{size} ({name})", "middle", ' font-weight="bold"')
        out.append(f'<rect x="{left:.1f}" y="{TOP}" width="{panel:.1f}" height="{bottom - TOP}" fill="#f5f6f8"/>')
        for m in ticks(low, high):
            one = m == 1
            out.append(f'<line x1="{at(m):.1f}" x2="{at(m):.1f}" y1="{TOP}" y2="{bottom}" '
                       f'stroke="{"#444" if one else "#d5d8dd"}" stroke-width="{1.5 if one else 1}"/>')
            words(at(m), bottom + 17, f"{m:g}", "middle")
        for i, row in enumerate(rows):
            for j, (kind, colour) in enumerate(COLOURS.items()):
                r = found.get((shape, kind, row))
                if r is None or r <= 0:
                    continue
                fill = colour if r > 1 else "#fff"
                out.append(f'<circle cx="{at(r):.1f}" cy="{TOP + STEP * (i + 0.5) + 7 * (j - 1):.1f}" r="4.5" '
                           f'fill="{fill}" stroke="{colour}" stroke-width="2"/>')
    words(LEFT + (WIDTH - LEFT - 20) / 2, bottom + 38, "saif / better rival, logarithmic: right of 1 saif is ahead",
          "middle")
    return "\n".join(out + ["</svg>"]) + "\n"
