#!/usr/bin/env bash
# Reproduces data/studies/smollm2.json, the settings that `saif demo` uses: discovery on the discovery split, a sweep of
# every task on the tuning split, the grids behind the report's plots, and the test split once at the end. Stopped and
# started again it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

saif=build/release/saif
work=${SAIF_STUDY_WORK:-build/study}
tasks=${SAIF_STUDY_TASKS:-"french german spanish portuguese python json numbered_list poem fairy_tale one_sentence"}
mkdir -p "$work"

echo "==> discovery, instruction after and before the content"
[ -s "$work/find.json" ] ||
  { "$saif" find --model smollm2 --task "${tasks// /,}" --placement post,pre --contents 16 --variants 8 \
    --out "$work/study" --json >"$work/find.tmp" && mv "$work/find.tmp" "$work/find.json"; }

# step NAME COMMAND...: keeps the JSON of a finished command.
step() {
  local out=$work/$1.json
  shift
  [ -s "$out" ] && return
  echo "==> $(basename "$out" .json)"
  "$@" --json >"$out.tmp"
  mv "$out.tmp" "$out"
}

for task in $tasks; do
  step "sweep-$task" "$saif" sweep "$work/study" --task "$task" --layer 18,20,24,26 --k 5,15,30 --beta 0,1 \
    --scale 0.75,1,1.3,1.8 --decay 0,0.1,0.5 --op project,add --norm-preserving \
    --rank sensitivity,specificity,mean_difference,specific_mean --contents 16 --screen 5 --confirm 3 --rounds 2
done
for task in $tasks; do
  step "diffmean-$task" "$saif" sweep "$work/study" --task "$task" --method diffmean --layer 18,20,24,26 \
    --scale 0.75,1,1.3,1.8 --decay 0,0.1,0.5 --op project,add --norm-preserving --contents 16 --screen 5 --confirm 3 \
    --rounds 2
done

# A single latent at strengths of its own, for the claim about k: the demo's settings have five or more, whose answers are
# the better language.
for task in $tasks; do
  step "one-$task" "$saif" sweep "$work/study" --task "$task" --order full --k 1 --layer 18,20,24,26 --scale 1,1.8,2.7 \
    --op project,add --norm-preserving --rank sensitivity,mean_difference --contents 16 --screen 5 --confirm 1
done

# Layer by k at the best of the other settings; discovery before the content at strengths around the best.
recipe="beta,scale,rank,decay,op,norm-preserving"
for task in $tasks; do
  sweep=$work/sweep-$task.json
  # shellcheck disable=SC2046
  step "grid-$task" "$saif" sweep "$work/study" --task "$task" --order full --layer all --k 1,5,15,30,60 \
    $(python3 tools/collect_study.py --flags "$recipe" "$sweep") --contents 16 --confirm 1
  # shellcheck disable=SC2046
  step "pre-$task" "$saif" sweep "$work/study" --task "$task" --order full --placement pre \
    $(python3 tools/collect_study.py --flags layer,k,beta,rank,decay,op,norm-preserving "$sweep") \
    $(python3 tools/collect_study.py --around "$sweep") --contents 24 --confirm 2
done

# A study of its own for the figures: the setting found for each method, then every method and control on the test split.
echo "==> the chosen settings on the test split"
[ -s "$work/final.json" ] ||
  { "$saif" find --model smollm2 --task "${tasks// /,}" --contents 16 --variants 8 --out "$work/final" \
    --json >"$work/final.tmp" && mv "$work/final.tmp" "$work/final.json"; }
for task in $tasks; do
  # shellcheck disable=SC2046
  step "final-saif-$task" "$saif" sweep "$work/final" --task "$task" --order full --contents 16 --confirm 1 \
    $(python3 tools/collect_study.py --flags "layer,k,$recipe" "$work/sweep-$task.json")
  # shellcheck disable=SC2046
  step "final-diffmean-$task" "$saif" sweep "$work/final" --task "$task" --method diffmean --order full --contents 16 \
    --confirm 1 $(python3 tools/collect_study.py --flags layer,scale,decay,op,norm-preserving "$work/diffmean-$task.json")
  step "test-$task" "$saif" eval "$work/final" --task "$task" --split test --limit 150 \
    --method none,prompt,prompt_pre,saif,diffmean,random,random_latents
done

python3 tools/collect_study.py --work "$work" --tasks "$tasks" --metrics models/smollm2-135m-instruct/metrics.jsonl \
  --out data/studies/smollm2.json
