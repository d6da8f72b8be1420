#!/usr/bin/env python3
"""Measures saif, llama.cpp and Transformers on the same weights, in turn, and writes docs/benchmarks.md.

usage: run.py [--quick] [--only FILTERS] [--programs NAMES] [--rounds N] [--minutes M] [--prepare | --page]

Raw figures are kept in docs/benchmarks.json: a row that is measured again replaces the older one, the others stay, and
--page writes the page and the plot again without measuring. FILTERS are separated by commas; a row is measured when all
words of one of them are in its name: "1b bf16", "decode 32", "135m sweep". Run setup.sh first (`make bench-rivals`
does).
"""

import argparse
import datetime
import glob
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DIR = Path(os.environ.get("SAIF_RIVALS_DIR", ROOT / "build/rivals")).resolve()
VENV = Path(os.environ.get("SAIF_RIVALS_VENV", ROOT / "build/rivals-venv"))
JOB = Path(os.environ.get("SAIF_RIVALS_JOB", ROOT / "../shared/data/jobs/discovery.json")).resolve()
SAIF = ROOT / "build/release/saif"
# A kind of machine has a page of its own: benchmarks, or benchmarks_NAME.
PAGE = "_".join(filter(None, ["benchmarks", os.environ.get("SAIF_RIVALS_MACHINE", "")]))
RESULTS = ROOT / f"docs/{PAGE}.json"
MODELS = DIR / "models"
TOKENIZER = Path.home() / ".cache/saif/models/SmolLM2-135M-Instruct.Q4_1.gguf"

SHAPES = {"135m": 0.135e9, "1b": 1.24e9, "2.6b": 2.61e9}  # parameters
TYPES = ("bf16", "q8_0", "q4_k_m")
PREFILL, DECODE = (64, 512, 2048), (1, 8, 32, 128)
PROGRAMS = ("saif", "saif tuned", "llama.cpp", "transformers")
SWEEP = {"contents": 10, "settings": 60, "prompt_tokens": 48, "new_tokens": 32}
THREADS = os.cpu_count()


def say(text):
    print(f"rivals: {text}", flush=True)


# --- rows -------------------------------------------------------------------------------------------------------------


def all_rows():
    """(shape, type, row) in the order in which they are measured."""
    for shape in SHAPES:
        for kind in TYPES:
            rows = [f"prefill {n}" for n in PREFILL] + [f"decode {n}" for n in DECODE] + ["load warm", "load cold",
                                                                                          "memory"]
            if shape == "135m" and kind == "bf16" and JOB.is_file() and TOKENIZER.is_file():
                rows.append("discovery")
            if shape != "2.6b" and kind == "bf16":
                rows.append("sweep")
            for row in rows:
                yield shape, kind, row


def is_quick(shape, kind, row):
    if shape == "135m":
        return row not in ("prefill 64", "prefill 2048", "sweep") and (kind == "bf16" or row.startswith(("prefill", "decode")))
    if shape == "1b":
        return row in ("prefill 512", "decode 1", "decode 32") or (kind == "bf16" and row == "memory")
    return kind != "q8_0" and row in ("prefill 512", "decode 1", "load warm")


def wanted_rows(args):
    filters = [set(f.split()) for f in args.only.split(",") if f.strip()]
    units = {}
    for shape, kind, row in all_rows():
        words = {shape, kind, *row.split()}
        if args.quick and not is_quick(shape, kind, row):
            continue
        if filters and not any(f <= words for f in filters):
            continue
        units.setdefault((shape, kind), []).append(row)
    return units


# --- models -----------------------------------------------------------------------------------------------------------


def model_file(shape, kind):
    return MODELS / f"{shape}.{kind}.gguf"


def prepare(shape, kinds):
    MODELS.mkdir(parents=True, exist_ok=True)
    bf16 = model_file(shape, "bf16")
    if not bf16.is_file() or not (MODELS / shape / "model.safetensors").is_file():
        say(f"writing the weights of {shape}")
        tokenizer = [TOKENIZER] if shape == "135m" and TOKENIZER.is_file() else []
        subprocess.run([VENV / "bin/python", HERE / "models.py", MODELS, shape, *tokenizer], check=True)
    for kind in kinds:
        path = model_file(shape, kind)
        if path.is_file():
            continue
        say(f"making {path.name}")
        tmp = path.with_suffix(".tmp")
        run([DIR / "llama.cpp/bin/llama-quantize", bf16, tmp, kind.upper(), THREADS])
        tmp.rename(path)


def read_into_cache(path):
    with open(path, "rb") as f:
        while f.read(1 << 24):
            pass


def drop_from_cache(path):
    """The file's pages leave memory: the next reader meets the disk, whose own cache (a virtual machine's host has one)
    has just seen all of it, so that the program that comes first does not pay for the others."""
    read_into_cache(path)
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- programs ---------------------------------------------------------------------------------------------------------


class Failed(Exception):
    pass


class Ended:
    """What a program printed, how long it took and how much memory it held at most."""

    def __init__(self, command):
        start = time.perf_counter()
        with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=open(DIR / "stderr.log", "wb"),
                              text=True) as process:
            self.out = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = time.perf_counter() - start
        self.peak_mb = usage.ru_maxrss * 1024e-6
        if process.returncode != 0:
            tail = (DIR / "stderr.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"{Path(command[0]).name} ended with {process.returncode}: {' '.join(tail)}")

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


run = Ended


class Saif:
    flags, memory_flags = [], ["--quantised", "keep"]

    def __init__(self, shape, kind, _):
        self.file, self.roofs = model_file(shape, kind), DIR / "roofs.json"
        self.seconds = 0.5

    def bench(self, rows, *more, seconds=None, flags=None):
        return run([SAIF, "bench", "--quiet", "--json", "--typical", "--threads", THREADS, "--model", self.file,
                    "--roofs", self.roofs, "--seconds", seconds or self.seconds, "--only", ",".join(rows),
                    *(self.flags if flags is None else flags), *more])

    def measure(self, rows):
        """{row: value} and {row: roof}"""
        values, roofs = {}, {}
        if "load cold" in rows:
            drop_from_cache(self.file)
            values["load cold"] = self.bench(["load"]).seconds
        if "load warm" in rows:
            read_into_cache(self.file)
            values["load warm"] = self.bench(["load"]).seconds
        if "memory" in rows:
            peak = self.bench(["prefill 512", "decode 1"], seconds=0.01, flags=self.memory_flags).peak_mb
            values["memory"] = peak - self.file.stat().st_size * 1e-6
        own = [r for r in rows if r not in ("load cold", "load warm", "memory")]
        if own:
            job = ["--job", JOB] if "discovery" in own else []
            for row in self.bench(own, *job).lines()[0]["rows"]:
                values[row["name"]] = row["value"]
                roofs[row["name"]] = row["roof"]
        return values, roofs

    def close(self):
        pass


class SaifTuned(Saif):
    """Weights in huge pages, keys and values in bfloat16; for one row activations of 8 bits, as llama.cpp has them."""
    flags = ["--weights", "resident", "--kv", "bf16"]
    memory_flags = ["--kv", "bf16", "--quantised", "keep"]  # weights where they lie

    def __init__(self, shape, kind, notes):
        super().__init__(shape, kind, notes)
        self.blocks = kind != "bf16"

    def measure(self, rows):
        values, _ = super().measure(rows)
        if self.blocks and "decode 1" in rows:
            flags = [*self.flags, "--quantised", "int8"]
            for row in self.bench(["decode 1"], flags=flags).lines()[0]["rows"]:
                values[row["name"]] = max(values[row["name"]], row["value"])
        return values, {}


class Llama:
    def __init__(self, shape, kind, notes):
        self.file, self.parameters = model_file(shape, kind), SHAPES[shape]
        self.notes = notes
        self.flash = None  # flash attention for prefill and decoding

    def bench(self, prompts, tokens, *flags):
        return run([DIR / "llama.cpp/bin/llama-bench", "-m", self.file, "-t", THREADS, "-r", 1, "--no-warmup",
                    "-o", "jsonl", "-p", ",".join(map(str, prompts)), "-n", ",".join(map(str, tokens)), *flags])

    def batched(self, prompt, tokens, rows):
        sequences = max(rows)
        command = [DIR / "llama.cpp/bin/llama-batched-bench", "-m", self.file, "-t", THREADS, "-b", 2048, "-ub", 512,
                   "-c", sequences * 256, "-npp", prompt, "-ntg", tokens, "-npl", ",".join(map(str, rows)),
                   "-fa", ("off", "on")[self.flash[1]], "--output-format", "jsonl"]
        return run(command).lines()

    def choose_flash(self):
        """With or without flash attention, whichever is faster, for prefill and for decoding."""
        rates = {}
        for row in self.bench([16, 512], [16], "-fa", "0,1").lines():
            rates[bool(row["n_prompt"]), int(row["flash_attn"] not in (0, "0", "off", False))] = row["avg_ts"]
        self.flash = [int(rates[prompt, 1] > rates[prompt, 0]) for prompt in (True, False)]
        self.notes["flash attention (prefill, decode)"] = self.flash

    def repeats(self, tokens):
        """So many runs take about half a second."""
        return max(1, min(8, int(0.5 / (2 * self.parameters * tokens / 300e9))))

    def measure(self, rows):
        values = {}
        if "load cold" in rows:
            drop_from_cache(self.file)
            values["load cold"] = self.bench([8], [0]).seconds
        if "load warm" in rows:
            read_into_cache(self.file)
            values["load warm"] = self.bench([8], [0]).seconds
        if "memory" in rows:
            values["memory"] = self.bench([512], [16]).peak_mb - self.file.stat().st_size * 1e-6
        numbers = {word: [int(r.split()[1]) for r in rows if r.startswith(word)] for word in ("prefill", "decode")}
        if any(numbers.values()) and self.flash is None or "sweep" in rows and self.flash is None:
            self.choose_flash()
        if numbers["prefill"]:
            prompts = [16] + [n for n in numbers["prefill"] for _ in range(self.repeats(n))]
            rates = {}
            for row in self.bench(prompts, [0], "-fa", self.flash[0]).lines():
                rates.setdefault(row["n_prompt"], []).append(row["avg_ts"])
            values.update({f"prefill {n}": median(rates[n]) for n in numbers["prefill"]})
        if 1 in numbers["decode"]:
            got = self.bench([16], [32 if self.parameters < 2e9 else 16], "-fa", self.flash[1]).lines()
            values["decode 1"] = got[-1]["avg_ts"]
        if many := [n for n in numbers["decode"] if n > 1]:
            for row in self.batched(8, 8, many):
                values[f"decode {row['pl']}"] = row["speed_tg"]
        if "sweep" in rows:
            one = self.batched(SWEEP["prompt_tokens"], SWEEP["new_tokens"], [SWEEP["contents"]])[0]
            values["sweep"] = one["t"] * SWEEP["settings"]
        return values, {}

    def close(self):
        pass


class Transformers:
    def __init__(self, shape, kind, notes):
        self.folder, self.process, self.notes = MODELS / shape, None, notes
        self.weights = self.folder / "model.safetensors"
        self.loads = {}

    def start(self):
        command = [VENV / "bin/python", HERE / "transformers_worker.py", self.folder, "--threads", str(THREADS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=open(DIR / "transformers.log", "wb"))
        about = self.reply()
        self.notes["transformers"] = {k: about[k] for k in ("torch", "transformers", "attention")}
        return about

    def reply(self):
        line = self.process.stdout.readline()
        if not line:
            tail = (DIR / "transformers.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed("the Transformers worker ended: " + " ".join(tail))
        return json.loads(line)

    def ask(self, row, **arguments):
        self.process.stdin.write(json.dumps({"row": row, **arguments}) + "\n")
        self.process.stdin.flush()
        return self.reply()["value"]

    def measure(self, rows):
        values = {}
        if "load cold" in rows:
            self.close()
            drop_from_cache(self.weights)
            values["load cold"] = self.start()["load_seconds"]
        if "load warm" in rows or "memory" in rows:
            self.close()
            read_into_cache(self.weights)
            seconds = self.start()["load_seconds"]
            if "load warm" in rows:
                values["load warm"] = seconds
            if "memory" in rows:
                values["memory"] = self.ask("memory", weights_mb=self.weights.stat().st_size * 1e-6)
        if self.process is None:
            self.start()
        self.ask("prefill 16", seconds=0)
        for row in rows:
            if row.startswith(("prefill", "decode")):
                values[row] = self.ask(row, seconds=0.5)
        if "discovery" in rows:
            prompts = DIR / "prompts.json"
            if not prompts.is_file():
                run([VENV / "bin/python", HERE / "prompts.py", JOB, TOKENIZER, prompts])
            values["discovery"] = self.ask("discovery", job_file=str(JOB), prompts_file=str(prompts))
        if "sweep" in rows:
            values["sweep"] = self.ask("sweep", **SWEEP)
        return values, {}

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


MAKERS = {"saif": Saif, "saif tuned": SaifTuned, "llama.cpp": Llama, "transformers": Transformers}


# --- the run ----------------------------------------------------------------------------------------------------------


def measure_roofs():
    text = run([SAIF, "doctor", "--quiet", "--json", "--threads", THREADS]).out
    (DIR / "roofs.json").write_text(text)
    return json.loads(text)


def rows_of(program, kind, rows):
    if program == "transformers" and kind != "bf16":
        return []
    if program == "saif tuned":
        return [r for r in rows if r.startswith(("prefill", "decode", "memory"))]
    return [r for r in rows if not (program == "llama.cpp" and r == "discovery")]


def measure_unit(shape, kind, rows, args, results):
    """All programs in turn, as often as there are rounds; what was measured replaces what the results hold."""
    notes = results.setdefault("notes", {}).setdefault(f"{shape} {kind}", {})
    programs = {name: MAKERS[name](shape, kind, notes) for name in args.programs if rows_of(name, kind, rows)}
    needs_roofs = "saif" in programs or "saif tuned" in programs
    fresh = {}
    try:
        for number in range(args.rounds):
            doctor = measure_roofs() if needs_roofs else None
            if doctor:
                results.setdefault("doctor", {}).setdefault(f"{shape} {kind}", []).append(
                    {k: doctor[k] for k in ("gemm_bf16_gflops", "gemm_f32_gflops", "read_gbps")})
                results["machine"].update(cpu=doctor["cpu"], kernels=doctor["isa"], onednn=doctor["onednn"])
            for name, program in programs.items():
                start = time.perf_counter()
                try:
                    values, roofs = program.measure(rows_of(name, kind, rows))
                except Failed as failure:
                    say(f"{shape} {kind} {name}: {failure}")
                    program.close()
                    continue
                say(f"{shape} {kind} round {number + 1}, {name}: {time.perf_counter() - start:.1f} s; " +
                    ", ".join(f"{row} {value:.4g}" for row, value in values.items()))
                for row, value in values.items():
                    entry = fresh.setdefault(f"{shape} {kind} {row}", {})
                    entry.setdefault(name, []).append(value)
                    if roofs.get(row):
                        entry.setdefault("roof", []).append(roofs[row])
    finally:
        for program in programs.values():
            program.close()
    for key, entry in fresh.items():
        if set(args.programs) == set(PROGRAMS):
            results["rows"][key] = entry
        else:
            results["rows"].setdefault(key, {}).update(entry)
        results["rows"][key]["when"] = datetime.date.today().isoformat()


def machine():
    memory = next(line for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {"threads": THREADS, "memory_gb": round(int(memory.split()[1]) * 1024e-9, 1), "system": platform.platform()}


def versions():
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    version = DIR / "llama.cpp/version"
    return {"saif": commit.stdout.strip(), "llama.cpp": version.read_text().strip() if version.is_file() else "unknown"}


def write(results):
    tmp = RESULTS.with_suffix(".tmp")
    tmp.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    tmp.rename(RESULTS)
    (ROOT / f"docs/{PAGE}.svg").write_text(page.plot(results))
    (ROOT / f"docs/{PAGE}.md").write_text(page.text(results, PAGE))
    readme = ROOT / "README.md"
    readme.write_text(page.with_brief(readme.read_text(), results, PAGE))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the most telling rows, within 15 minutes")
    parser.add_argument("--only", default="", help="filters of rows")
    parser.add_argument("--programs", default=",".join(PROGRAMS), type=lambda text: text.split(","))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0, help="no further model is begun after so long; 0: no limit")
    parser.add_argument("--prepare", action="store_true", help="only write the models")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--tidy", action="store_true", help="afterwards remove the models of 2.6B (15 GB)")
    args = parser.parse_args()
    for name in args.programs:
        if name not in PROGRAMS:
            parser.error(f"program {name!r} is unknown; known: {', '.join(PROGRAMS)}")
    if args.quick and not args.minutes:
        args.minutes = 13
    return args


def main():
    args = arguments()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results.setdefault("rows", {})
    if args.page:
        return write(results)
    DIR.mkdir(parents=True, exist_ok=True)
    units = wanted_rows(args)
    if not units:
        sys.exit(f"rivals: no row has all words of {args.only!r}")
    for shape in dict.fromkeys(shape for shape, _ in units):
        prepare(shape, [kind for s, kind in units if s == shape])
    if args.prepare:
        return None
    results["machine"] = machine()
    results.setdefault("versions", {}).update(versions())
    flags = DIR / "llama.cpp/flags"
    results["llama_flags"] = flags.read_text().strip() if flags.is_file() else ""
    start = time.monotonic()
    for (shape, kind), rows in units.items():
        if args.minutes and time.monotonic() - start > 60 * args.minutes:
            say(f"{shape} {kind}: left out, {args.minutes:g} minutes are over")
            continue
        results.get("doctor", {}).pop(f"{shape} {kind}", None)
        measure_unit(shape, kind, rows, args, results)
        write(results)
    if args.tidy:
        for path in glob.glob(str(MODELS / "2.6b*.gguf")) + [str(MODELS / "2.6b/model.safetensors")]:
            os.remove(path)
    say(f"{(time.monotonic() - start) / 60:.1f} minutes; docs/benchmarks.md")


if __name__ == "__main__":
    main()
