#!/usr/bin/env python3
"""clang-tidy over every source of src/ and apps/ (tests left out), warnings being errors.

usage: check_tidy.py BUILD_FOLDER [FILE...]

A file that was clean is not looked at again until it, a project header that it includes, its compile command, the
list of checks or clang-tidy itself changes: build/tidy/ keeps one empty file per clean state, named by its hash.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIDY = "clang-tidy-16"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def project_headers(source, seen):
    """Adds to `seen` every file of the project that `source` includes, directly or not."""
    for name in INCLUDE.findall(source.read_text(encoding="utf-8", errors="replace")):
        for folder in (source.parent, ROOT / "src", ROOT / "include"):
            header = (folder / name).resolve()
            if header.is_file() and ROOT in header.parents:
                if header not in seen:
                    seen.add(header)
                    project_headers(header, seen)
                break


def state_of(source, command, common):
    files = {source}
    project_headers(source, files)
    digest = hashlib.sha256(common)
    digest.update(command.encode())
    for path in sorted(files):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def extra_options():
    """clang-tidy brings no omp.h, so GCC's headers come last in its search order; GCC's omp.h spells an attribute,
    __malloc__(deallocator), that clang 16 does not know, and that is defined away."""
    run = subprocess.run(["g++", "-print-file-name=include"], check=True, capture_output=True, text=True)
    return ["--extra-arg=" + option for option in
            (f"-idirafter{run.stdout.strip()}", "-D__malloc__(deallocator)=", "-Wno-unknown-warning-option")]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build = Path(sys.argv[1]).resolve()
    only = {Path(name).resolve() for name in sys.argv[2:]}
    database = build / "compile_commands.json"
    if not database.is_file():
        sys.exit(f"tidy: {database} is not there; run `make build` first")
    stamps = ROOT / "build" / "tidy"
    stamps.mkdir(parents=True, exist_ok=True)

    version = subprocess.run([TIDY, "--version"], check=True, capture_output=True).stdout
    options = extra_options()
    common = version + (ROOT / ".clang-tidy").read_bytes() + " ".join(options).encode()

    todo = {}
    for entry in json.loads(database.read_text(encoding="utf-8")):
        source = Path(entry["directory"], entry["file"]).resolve()
        ours = (ROOT / "src") in source.parents or (ROOT / "apps") in source.parents
        if not ours or source.name.endswith("_test.cc") or not source.is_file() or (only and source not in only):
            continue
        stamp = stamps / state_of(source, entry["command"], common)
        if not stamp.exists():
            todo[source] = stamp

    def check(source):
        run = subprocess.run([TIDY, "-p", str(build), "--quiet", *options, str(source)], capture_output=True, text=True)
        if run.returncode == 0:
            todo[source].touch()
            return True
        print(run.stdout + ("" if run.stdout.strip() else run.stderr), flush=True)
        return False

    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        results = list(pool.map(check, sorted(todo)))
    failed = results.count(False)
    print(f"tidy: {len(todo)} files looked at, {failed} with warnings")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
