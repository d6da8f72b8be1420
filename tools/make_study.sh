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
  step "sweep-$task" "$saif" sweep "$work/study" --task "$task" --k 1,5,15,30 --beta 0,1 --scale 1,1.5,2,3 \
    --rank mean_difference,specific_mean --decay 0.05,0 --contents 12 --confirm 2 --rounds 1
done
for task in $tasks; do
  step "diffmean-$task" "$saif" sweep "$work/study" --task "$task" --method diffmean --scale 1,1.5,2 \
    --decay 0 --contents 12 --confirm 1 --rounds 1
done

python3 tools/collect_study.py --work "$work" --tasks "$tasks" --out data/studies/smollm2.json

for task in $tasks; do
  best=$(python3 tools/collect_study.py --best "$work/sweep-$task.json")
  # shellcheck disable=SC2086
  step "grid-$task" "$saif" sweep "$work/study" --task "$task" --order full --layer all --k 1,5,15,30 $best \
    --contents 12 --confirm 1
  # shellcheck disable=SC2086
  step "pre-$task" "$saif" eval "$work/study" --task "$task" --split test --limit 100 --method saif,prompt,prompt_pre \
    --placement pre --no-perplexity $(python3 tools/collect_study.py --recipe "$work/sweep-$task.json")
  # shellcheck disable=SC2086
  step "test-$task" "$saif" eval "$work/study" --task "$task" --split test --limit 100 \
    --method none,prompt,prompt_pre,saif,random,random_latents \
    $(python3 tools/collect_study.py --recipe "$work/sweep-$task.json")
done

python3 tools/collect_study.py --work "$work" --tasks "$tasks" --out data/studies/smollm2.json
