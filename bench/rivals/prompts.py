#!/usr/bin/env python3
"""Token ids of a discovery job's prompts, by Transformers' tokenizer and chat template.

usage: prompts.py JOB.json MODEL.gguf OUT.json
"""

import json
import os
import sys

import transformers

job_file, model, out = sys.argv[1:]
job = json.load(open(job_file))
tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.dirname(model), gguf_file=os.path.basename(model))
prompts = []
for content in job["contents"]:
    for variant in job["variants"]:
        parts = [content, variant] if job["placement"] == "post" else [variant, content]
        text = job["separator"].join(parts) if variant else content
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                                 add_generation_prompt=True)
        prompts.append(tokenizer(rendered, add_special_tokens=False)["input_ids"])
with open(out, "w") as f:
    json.dump(prompts, f)
