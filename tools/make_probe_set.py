#!/usr/bin/env python3
"""Writes data/probe.jsonl, the labelled texts that `saif sae eval` probes by default: which instruction a prompt holds.

Each line is {"text", "label", "split"}: a content of data/contents.jsonl and, on a line of its own, an instruction of
data/tasks (the label is its task) or a sentence that asks for nothing (label "none"). Contents come from the discovery
split for training and from the test split for testing, and no wording stands in both, so that a probe has to know the
instruction and not its words. Deterministic.
"""

import argparse
import json
import random
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(Path(__file__).parent.parent / "data"))
    parser.add_argument("--train", type=int, default=30, help="texts per label")
    parser.add_argument("--test", type=int, default=20, help="texts per label")
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    data = Path(args.data)
    rng = random.Random(5)
    contents = [json.loads(line) for line in (data / "contents.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {"train": [c["text"] for c in contents if c["split"] == "discovery"],
             "test": [c["text"] for c in contents if c["split"] == "test"]}
    wordings, neutral = {}, []
    for path in sorted((data / "tasks").glob("*.json")):
        task = json.loads(path.read_text(encoding="utf-8"))
        wordings[task["name"]] = [text for group in task["instructions"].values() for text in group]
        neutral += [text for text in task["unrelated"] if text not in neutral]
    wordings["none"] = neutral
    lines = []
    for label, group in sorted(wordings.items()):
        rng.shuffle(group)
        parts = {"train": group[::2], "test": group[1::2]}
        for split, count in (("train", args.train), ("test", args.test)):
            for i, content in enumerate(rng.sample(texts[split], count)):
                wording = parts[split][i % len(parts[split])]
                lines.append({"text": f"{content}\n{wording}", "label": label, "split": split})
    out = Path(args.out) if args.out else data / "probe.jsonl"
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
