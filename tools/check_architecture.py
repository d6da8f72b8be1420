#!/usr/bin/env python3
"""The architecture of saif as a check: docs/architecture.md says the rules in words, this file refuses what breaks them.

usage: check_architecture.py [ROOT]

Each check_* function takes a Tree and yields findings "FILE:LINE: what is wrong and what to do"; those that begin with
"warning: " are printed and do not fail. Adding a library, a public header or a room touches the tables below.
"""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

# The room that a public header belongs to. A room may include the public headers of its own room and of those above.
PUBLIC_HEADERS = {
    "control.h": "base", "error.h": "base", "json.h": "base", "options.h": "base", "tensor.h": "tensor",
    "text.h": "text", "model.h": "model", "engine.h": "engine", "sae.h": "sae", "task.h": "data",
    "machine.h": "study", "vector.h": "study", "verify.h": "study", "stats.h": "study", "study.h": "study",
    "sweep.h": "sweep",
}

# A third-party header (pattern) and the files (patterns) that may include it.
THIRD_PARTY = {
    "nlohmann/*": ["src/base/json.cc"],
    "omp.h": ["src/base/parallel.h", "src/kernels/cpu/*"],
    "*dnnl*": ["src/kernels/cpu/onednn.cc"],
    "hwy/*": ["src/kernels/cpu/*"],
    "zlib.h": ["src/formats/zip.cc"],
    "*hf_c.h": ["src/text/hf*.cc"],
    "*language_c.h": ["src/text/language.cc"],
    "sentencepiece*": ["src/text/sentencepiece.cc"],
    "sqlite3.h": ["src/sweep/store.cc", "src/sweep/store_test.cc"],
    "CLI/*": ["apps/cli/*"],
    "gtest/*": ["src/*_test.cc", "tests/*"],
    "benchmark/*": ["bench/*"],
}

# Headers of the C library, POSIX and the compiler; C++ headers are those without a dot.
SYSTEM = ("sys/*", "netinet/*", "arpa/*", "arm_neon.h", "cpuid.h", "dirent.h", "fcntl.h", "immintrin.h", "netdb.h",
          "poll.h", "pthread.h", "pwd.h", "sched.h", "signal.h", "spawn.h", "stdint.h", "stddef.h", "stdbool.h",
          "termios.h", "time.h", "unistd.h")

TABLES = "tools/check_architecture.py:1"  # the place that findings about the tables name

MAX_PUBLIC_HEADERS, MAX_PUBLIC_LINES = 16, 2500
WARN_LINES, MAX_LINES = 500, 700

PRINTS_OR_ENDS = re.compile(
    r"std::c(?:out|err|log)\b|std::(?:terminate|abort|exit|quick_exit)\b|fmt::print\b"
    r"|(?<![\w.>])(?:v?f?printf|f?puts|f?putc|putchar|perror|abort|_?exit|quick_exit|assert)\s*\(")

# Names of one workplace, which mean nothing to anybody else. Written so that this file does not find itself.
WORKPLACE = re.compile(r"/wor" r"k/|\bfar" r"m-[0-9a-z]")
PROSE = ("data/*", "models/*")  # English about farms is no name of a machine: only the path is looked for there


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Tree:
    """The files of a checkout: those that git tracks or would track, or all where there is no git."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        listing = subprocess.run(["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others",
                                  "--exclude-standard"], capture_output=True)
        if listing.returncode == 0 and (self.root / ".git").exists():
            names = {name for name in listing.stdout.decode().split("\0") if name}
        else:
            names = {str(path.relative_to(self.root)) for path in self.root.rglob("*")}
            names = {name for name in names if not name.startswith(("build/", ".git/"))}
        self.names = sorted(name for name in names if (self.root / name).is_file())
        self.rooms = re.findall(r"^saif_room\((\w+)\)", self.text("CMakeLists.txt"), re.MULTILINE)

    def text(self, name):
        path = self.root / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def sources(self, *folders):
        return [name for name in self.names if name.startswith(folders) and name.endswith((".h", ".cc"))]


def without_comments(text, keep_strings):
    """C++ without its comments (and the contents of its literals); the lines keep their numbers."""
    token = re.compile(
        r'R"([^()\\\s]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"' r"|(?<![\w])'(?:\\.[^'\n]*|[^'\\\n])'"
        r"|//[^\n]*|/\*.*?\*/", re.DOTALL)

    def replace(match):
        literal = match.group()
        if literal.startswith("/"):
            return "\n" * literal.count("\n") or " "
        return literal if keep_strings else '""' + "\n" * literal.count("\n")

    return token.sub(replace, text)


def includes(tree, name):
    """(line, header, quoted) of each #include of a file; a computed include (a macro) is not seen."""
    text = without_comments(tree.text(name), keep_strings=True)
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*(?:<([^>]+)>|"([^"]+)")', line)
        if match:
            yield number, match.group(1) or match.group(2), match.group(2) is not None


def local_file(tree, name, header):
    """The file of the repository that a quoted include names, or None."""
    for candidate in (str(Path(name).parent / header), "src/" + header, "include/" + header, "tests/" + header):
        if (tree.root / candidate).is_file():
            return candidate
    return None


def room_of(name):
    """The room that a file of the library belongs to, or None."""
    parts = name.split("/")
    if name.startswith("src/") and len(parts) > 2:
        return parts[1]
    if name.startswith("include/saif/"):
        return PUBLIC_HEADERS.get(parts[-1])
    return None


def check_tables(tree):
    """A row that names nothing would let a file of that name in unseen."""
    for header in PUBLIC_HEADERS:
        if "include/saif/" + header not in tree.names:
            yield f"{TABLES}: PUBLIC_HEADERS names include/saif/{header}, which does not exist; take the row out"
    for header, files in THIRD_PARTY.items():
        for pattern in files:
            if not fnmatch.filter(tree.names, pattern):
                yield (f"{TABLES}: THIRD_PARTY names {pattern} for {header}, which does not exist; name the file that "
                       "includes it or take the row out")


def check_directions(tree):
    rank = {room: i for i, room in enumerate(tree.rooms)}
    for name in tree.sources("src/", "include/"):
        room = room_of(name)
        if room not in rank:
            table = "PUBLIC_HEADERS of tools/check_architecture.py" if name.startswith("include/") else "CMakeLists.txt"
            yield f"{name}:1: belongs to no room; give it one in {table}"
            continue
        for line, header, quoted in includes(tree, name):
            target = local_file(tree, name, header) if quoted or header.startswith("saif/") else None
            other = room_of(target) if target else None
            if other in rank and rank[other] > rank[room]:
                yield (f"{name}:{line}: includes {header}, which is upward: {room} may include only "
                       f"{', '.join(tree.rooms[:rank[room] + 1])}")


def check_third_party(tree):
    for name in tree.sources("src/", "include/", "apps/", "tests/", "bench/", "fuzz/", "examples/"):
        for line, header, quoted in includes(tree, name):
            owners = [files for pattern, files in THIRD_PARTY.items() if matches(header, [pattern])]
            if owners:
                if not matches(name, owners[0]):
                    yield f"{name}:{line}: {header} may be included only in {', '.join(owners[0])}"
            elif quoted:
                if local_file(tree, name, header) is None:
                    yield f"{name}:{line}: {header} is no file of this repository"
            elif not header.startswith("saif/") and "." in header and not matches(header, SYSTEM):
                yield (f"{name}:{line}: {header} is not known; a new library gets one file and a line in THIRD_PARTY of "
                       "tools/check_architecture.py")


def check_public_headers(tree):
    headers = [name for name in tree.sources("include/")]
    for name in headers:
        for line, header, _ in includes(tree, name):
            if "." in header and not header.startswith("saif/"):
                yield f"{name}:{line}: {header}: public headers include std and each other (saif/) only"
    if len(headers) > MAX_PUBLIC_HEADERS:
        yield f"include/saif/: {len(headers)} public headers; at most {MAX_PUBLIC_HEADERS}"
    lines = sum(tree.text(name).count("\n") for name in headers)
    if lines > MAX_PUBLIC_LINES:
        yield f"include/saif/: {lines} lines of public headers; at most {MAX_PUBLIC_LINES} together"


def check_apps(tree):
    for name in tree.sources("apps/", "examples/"):
        for line, header, quoted in includes(tree, name):
            target = local_file(tree, name, header) if quoted else None
            if target and target.startswith("src/"):
                yield f"{name}:{line}: {header}: programs are clients of include/saif/ and include nothing of src/"


def check_library_is_quiet(tree):
    for name in tree.sources("src/", "include/"):
        if name.endswith("_test.cc"):
            continue
        code = without_comments(tree.text(name), keep_strings=False)
        for number, line in enumerate(code.split("\n"), 1):
            match = PRINTS_OR_ENDS.search(line)
            if match:
                yield (f"{name}:{number}: {match.group().rstrip('( ')}: the library never prints, aborts or exits; "
                       "throw saif::Error or return a value")


def check_lengths(tree):
    for name in tree.sources("src/"):
        lines = tree.text(name).count("\n")
        if lines > MAX_LINES:
            yield f"{name}:1: {lines} lines; at most {MAX_LINES}, aim for under {WARN_LINES}: split it by idea"
        elif lines > WARN_LINES:
            yield f"warning: {name}:1: {lines} lines; aim for under {WARN_LINES}"


def check_workplace_names(tree):
    for name in tree.names:
        data = (tree.root / name).read_bytes()
        if b"\0" in data[:8192] or len(data) > 8_000_000:
            continue  # not text
        for number, line in enumerate(data.decode("utf-8", errors="replace").split("\n"), 1):
            match = WORKPLACE.search(line)
            if match and (match.group().startswith("/") or not matches(name, PROSE)):
                yield f"{name}:{number}: {match.group()}: a name of one workplace; say it so that everybody can use it"


def anchors(markdown):
    """The anchors of a page as GitHub makes them: of its headings, and explicit ones."""
    found, seen = set(re.findall(r'<a (?:id|name)="([^"]+)"', markdown)), {}
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", without_code(markdown), re.MULTILINE):
        heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return found


def without_code(markdown):
    blank = lambda match: "\n" * match.group().count("\n")
    return re.sub(r"^(```|~~~).*?^\1", blank, markdown, flags=re.MULTILINE | re.DOTALL)


def check_links(tree):
    for name in (name for name in tree.names if name.endswith(".md")):
        text = without_code(tree.text(name))
        text = re.sub(r"`[^`\n]*`", "", text)
        for match in re.finditer(r'\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|<(?:img|a)\s[^>]*?(?:src|href)="([^"]+)"', text):
            link = match.group(1) or match.group(2)
            if re.match(r"[a-z][a-z0-9+.-]*:|//", link, re.IGNORECASE):
                continue  # another site
            line = text.count("\n", 0, match.start()) + 1
            path, _, anchor = link.partition("#")
            base = tree.root if path.startswith("/") else (tree.root / name).parent
            target = (base / path.lstrip("/")).resolve() if path else tree.root / name
            if not target.exists():
                yield f"{name}:{line}: broken link {link}: no such file"
            elif anchor and target.suffix == ".md":
                page = target.read_text(encoding="utf-8", errors="replace")
                if anchor not in anchors(page):
                    yield f"{name}:{line}: broken link {link}: that page has no such heading"


CHECKS = (check_tables, check_directions, check_third_party, check_public_headers, check_apps, check_library_is_quiet, check_lengths,
          check_workplace_names, check_links)


def main():
    tree = Tree(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)
    findings = [finding for check in CHECKS for finding in check(tree)]
    print("\n".join(findings), end="\n" if findings else "")
    errors = sum(not finding.startswith("warning: ") for finding in findings)
    print(f"architecture: {len(tree.names)} files, {errors} findings")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
