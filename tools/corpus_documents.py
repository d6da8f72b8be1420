#!/usr/bin/env python3
"""Joins prompts and the model's answers to documents: what `saif sae train` reads.

Input: JSON lines of `saif run --chat --json` ({"prompt", "text", ...}). Output: JSON lines {"text": transcript} in the
model's own chat form, as it saw them. Empty answers are left out; the order is shuffled, so that any prefix of the
corpus is a fair sample.
"""

import argparse
import json
import random
import sys

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def transcript(prompt: str, answer: str) -> str:
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n"
        f"<|im_start|>assistant\n{answer}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    documents = []
    for path in args.answers:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                answer = json.loads(line)
                if answer["text"].strip():
                    documents.append(transcript(answer["prompt"], answer["text"]))
    random.Random(args.seed).shuffle(documents)
    with open(args.out, "w", encoding="utf-8") as out:
        for text in documents:
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    print(f"{len(documents)} documents", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
