#!/usr/bin/env bash
# Sets up, checks style and types, and runs the tests. `--all` adds the slow ones (every ZeRO stage, a
# submitted job, …); other arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

selection="not slow and not gpu"
if [ "${1:-}" = "--all" ]; then
  shift
  selection="not gpu"
fi
ruff check .
ruff format --check .
mypy
# One thread per process: two cores are shared by the workers that the tests start.
OMP_NUM_THREADS=1 python -m pytest -m "$selection" "$@"
