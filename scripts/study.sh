#!/usr/bin/env bash
# The study: which estimators train a masked diffusion model better, and whose seeds spread less?
# A small model is pretrained on sorting two numbers and fine-tuned on sorting three: nine arms whose
# learning rates are searched on the held-out NELBO, eight fresh seeds each (means); four arms with 24
# seeds each (spread); and the variance of their gradients. CPU only, no downloads beyond the Python
# packages; at most 75 minutes on two cores. Run again after an interruption: what is done stays.
#
#   bash scripts/study.sh           # the study of the README
#   bash scripts/study.sh --full    # a larger model and longer runs: many hours on two cores
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
started=$SECONDS

model=models/tiny
full=()
place=study
case "${1:-}" in
  "") ;;
  --full)
    model=models/small
    full=(-c sweeps/study_full)
    place=study-full
    ;;
  *)
    echo "study.sh: unknown option $1; the only one is --full" >&2
    exit 2
    ;;
esac
elsewhere=(
  --set "data.folder=data/$place"
  --set "model.init_from=runs/$place/pretrained/model"
)
two=(-c base -c "$model" -c tasks/sorting --set "data.folder=data/$place-two")
three=(-c base -c "$model" -c tasks/sorting_three)

echo "== prepare: two numbers for pretraining, three for the study, one tokenizer"
raymdm prepare "${two[@]}"
raymdm prepare "${three[@]}" --set "data.folder=data/$place" \
  --set "prepare.tokenizer=data/$place-two/tokenizer"

for kind in standard arm; do
  name=pretrained
  [ "$kind" = arm ] && name=pretrained-arm
  echo "== pretrain: $kind"
  raymdm train "${two[@]}" -c "estimators/$kind" --resume --set "run_dir=runs/$place/$name" \
    --set training.steps=1200 --set training.batch_size=64 --set training.learning_rate=3e-3 \
    --set training.warmup_steps=50 --set training.checkpoint_every=300
done

echo "== means: 9 arms, 3 learning rates x 2 seeds each, then 8 fresh seeds"
raymdm sweep "${three[@]}" -c sweeps/study ${full[@]+"${full[@]}"} "${elsewhere[@]}" \
  --set "sweep.arms.arm.overlay.model.init_from=runs/$place/pretrained-arm/model" \
  --set "run_dir=runs/$place/means"

echo "== the same runs against twice the batch and twice the steps"
for baseline in standard_2x_batch standard_2x_steps; do
  raymdm compare "runs/$place/means" --baseline "$baseline" --output "runs/$place/against-$baseline"
done

echo "== spread: 4 arms x 24 seeds"
raymdm sweep "${three[@]}" -c sweeps/study_spread ${full[@]+"${full[@]}"} "${elsewhere[@]}" \
  --set "run_dir=runs/$place/spread"

echo "== variance of the gradient where fine-tuning begins"
raymdm variance "${three[@]}" "${elsewhere[@]}" --set training.batch_size=32 \
  --set "run_dir=runs/$place/variance" --out "runs/$place/variance" \
  --set "variance.estimators=[standard,multisample2,mirror,ppots,ppots_mirror,recommended]"
echo "done in $((SECONDS - started)) s after the installation: runs/$place/means/report.html," \
  "runs/$place/spread/report.html, runs/$place/variance/report.html"
