#!/usr/bin/env bash
# From nothing to a verdict on this machine: prepare a generated task, train three estimators with five
# seeds each, train once more on two workers with ZeRO 2, and compare. CPU only, no downloads beyond the
# Python packages; some minutes on two cores. Run again after an interruption: what is done stays.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
started=$SECONDS

configs=(-c base -c models/tiny -c tasks/sorting -c sweeps/quickstart)

echo "== prepare: 5,000 generated problems, tokenized"
raymdm prepare "${configs[@]}"

echo "== sweep: 3 estimators x 5 seeds"
raymdm sweep "${configs[@]}"

echo "== train: 2 workers, ZeRO 2, P-POTS + MIRROR"
raymdm train "${configs[@]}" -c estimators/ppots_mirror -c deepspeed/zero2 --resume \
  --set cluster.workers=2 --set training.steps=100 --set run_dir=runs/quickstart-train
raymdm evaluate runs/quickstart-train

echo "== compare: is a difference real, or seed noise?"
raymdm compare runs/quickstart
echo "done in $((SECONDS - started)) s after the installation"
