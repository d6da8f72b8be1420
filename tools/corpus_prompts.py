#!/usr/bin/env python3
"""Write a corpus of chat prompts, with and without an instruction, as JSON lines.

Every prompt is a content ("Tell me about tea."), made of a question form and a subject.  About 40 % of the
prompts are the content alone, 55 % add an instruction on a line of its own ("Answer in Dutch."), after the
content (60 %) or before it (40 %), and 5 % add in the same way a neutral sentence, which asks for nothing.
The kinds of instruction are equally frequent.  The output depends on the three files of the data directory
(subjects.json, forms.json, instructions.json), on --count and on --seed only.
"""

import argparse
import json
import random
from pathlib import Path

SHARE_BARE = 0.40
SHARE_NEUTRAL = 0.05
SHARE_AFTER = 0.60
MAX_REDRAWS = 100


def load(directory, name):
    return json.loads((Path(directory) / name).read_text(encoding="utf-8"))


def phrasings(kind):
    """All the phrasings of one kind of instruction, over its languages."""
    return [text for texts in kind.values() for text in texts]


def generate(subjects, forms, instructions, count, rng):
    """Yield `count` prompts; one comes twice only when no new one was found in MAX_REDRAWS draws."""
    contents = [form.replace("{x}", subject) for subject in subjects for form in forms]
    contents = sorted(set(contents))
    kinds = [phrasings(kind) for name, kind in sorted(instructions.items()) if name != "neutral"]
    neutral = phrasings(instructions["neutral"])
    bare = contents[:]  # dealt like a deck of cards, so that no content is used twice on its own
    rng.shuffle(bare)
    seen = set()

    def draw(draw_neutral):
        content = rng.choice(contents)
        extra = rng.choice(neutral if draw_neutral else rng.choice(kinds))
        lines = [content, extra] if rng.random() < SHARE_AFTER else [extra, content]
        return "\n".join(lines)

    for _ in range(count):
        share = rng.random()
        if share < SHARE_BARE and bare:
            yield bare.pop()
            continue
        draw_neutral = SHARE_BARE <= share < SHARE_BARE + SHARE_NEUTRAL
        for _ in range(MAX_REDRAWS):
            prompt = draw(draw_neutral)
            if prompt not in seen:
                break
        seen.add(prompt)
        yield prompt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default=str(Path(__file__).resolve().parent / "corpus"),
                        help="directory of subjects.json, forms.json, instructions.json (default: %(default)s)")
    parser.add_argument("--count", type=int, default=20000, help="number of prompts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random draws (default: %(default)s)")
    parser.add_argument("--out", required=True, help="JSONL file to write")
    args = parser.parse_args()
    if args.count < 0:
        parser.error("--count must not be negative")

    prompts = generate(load(args.data, "subjects.json"), load(args.data, "forms.json"),
                       load(args.data, "instructions.json"), args.count, random.Random(args.seed))
    with open(args.out, "w", encoding="utf-8", newline="\n") as out:
        for prompt in prompts:
            out.write(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
