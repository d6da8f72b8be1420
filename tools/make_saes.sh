#!/usr/bin/env bash
# Trains the bundled SAEs of SmolLM2-135M-Instruct from nothing: the model writes the documents itself (our prompts,
# temperature 0.8), `saif sae train` trains one SAE per layer from one pass over them. Hours on two cores; every step
# that is done is kept in build/saes, so that the script can be stopped and started again.
set -euo pipefail
cd "$(dirname "$0")/.."

saif=build/release/saif
work=${SAIF_SAES_WORK:-build/saes}
out=models/smollm2-135m-instruct
prompts=${SAIF_SAES_PROMPTS:-25000}
part=500
layers=${SAIF_SAES_LAYERS:-"18 20 24 26 28"}
d_sae=${SAIF_SAES_WIDTH:-4096}

mkdir -p "$work"
python3 tools/corpus_prompts.py --data data/corpus --count "$prompts" --seed 1 --out "$work/prompts.jsonl"
split --lines="$part" --numeric-suffixes --suffix-length=3 --additional-suffix=.jsonl "$work/prompts.jsonl" "$work/part-"

for file in "$work"/part-*.jsonl; do
  answers=${file/part-/answers-}
  [ -s "$answers" ] && continue
  echo "==> the model answers $(basename "$file")"
  "$saif" run smollm2 --chat --file "$file" --max-tokens 64 --temperature 0.8 --top-p 0.95 --batch 256 \
    --seed "$(basename "$file" | tr -dc 0-9 | sed 's/^0*//;s/^$/0/')" --json >"$answers.tmp"
  mv "$answers.tmp" "$answers"
done

echo "==> documents"
python3 tools/corpus_documents.py --answers "$work"/answers-*.jsonl --out "$work/documents.jsonl"

sites=$(for layer in $layers; do echo "blocks.$layer.hook_resid_post"; done | paste -sd,)
echo "==> training at $sites"
"$saif" sae train --model smollm2 --corpus "$work/documents.jsonl" --site "$sites" \
  --kind topk --d-sae "$d_sae" --k 32 --batch 1024 --lr 8e-4 --epochs 2 --context 160 --dead-after 100000 --out "$work/trained" \
  --json | tee "$work/metrics.jsonl"

mkdir -p "$out"
rm -rf "$out"/blocks.*.hook_resid_post
for layer in $layers; do
  mkdir -p "$out/blocks.$layer.hook_resid_post"
  cp "$work/trained/blocks.$layer.hook_resid_post"/{cfg.json,sae_weights.safetensors} "$out/blocks.$layer.hook_resid_post/"
done
python3 tools/model_card.py --metrics "$work/metrics.jsonl" --documents "$work/documents.jsonl" \
  --command "--d-sae $d_sae --k 32 --batch 1024 --lr 8e-4 --epochs 2 --context 160" --out "$out/README.md"
python3 - "$work/metrics.jsonl" "$out/metrics.jsonl" <<'EOF'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as lines, open(sys.argv[2], "w", encoding="utf-8") as out:
    for line in lines:
        row = json.loads(line)
        del row["folder"]  # of the machine that trained
        out.write(json.dumps(row) + "\n")
EOF
du -sh "$out"
