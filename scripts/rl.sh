#!/usr/bin/env bash
# Reinforcement learning on a CPU: a tiny model is pretrained on sorting two numbers until it is half
# right, then trained by MDPO and by diffu-GRPO on verified rewards, at equal rollouts, five seeds
# each. Ends in the verdict on exact match, and in decoding with and without RCR before and after.
# No downloads beyond the Python packages; 25 minutes on two quiet cores. Run again after an
# interruption: what is done stays.
#
#   bash scripts/rl.sh
#   bash scripts/rl.sh --rates    # first the learning rates, on held-out rows: 20 minutes more
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
started=$SECONDS
case "${1:-}" in
  "" | --rates) ;;
  *)
    echo "rl.sh: unknown option $1; the only one is --rates" >&2
    exit 2
    ;;
esac
sorting=(-c base -c models/tiny -c tasks/sorting)

echo "== prepare: two numbers to sort, with references for the training rows"
raymdm prepare "${sorting[@]}" -c rl/sorting --set data.folder=data/rl --set prepare.test_rows=1024

echo "== pretrain"
raymdm train "${sorting[@]}" --resume --set data.folder=data/rl --set run_dir=runs/rl/pretrained \
  --set training.steps=300

if [ "${1:-}" = --rates ]; then
  echo "== learning rates: 3 for each method x 2 seeds, scored on held-out rows"
  raymdm sweep "${sorting[@]}" -c rl/sorting -c sweeps/rl_rates
fi

mkdir -p runs/rl/decoded
echo "== MDPO against diffu-GRPO: 5 seeds each"
raymdm sweep "${sorting[@]}" -c rl/sorting -c sweeps/rl

for run in pretrained methods/trials/mdpo-seed0; do
  for remasking in none running_max; do
    echo "== $run in 4 steps, remasking $remasking"
    raymdm evaluate "runs/rl/$run" --rows generate --set evaluation.limit=1024 \
      --set evaluation.decoding.steps=4 --set "evaluation.decoding.remasking=$remasking" \
      --out "runs/rl/decoded/${run//\//-}-$remasking"
  done
done
echo "done in $((SECONDS - started)) s after the installation: runs/rl/methods/report.html"
