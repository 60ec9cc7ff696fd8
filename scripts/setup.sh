# Sourced by the other scripts: a virtual environment in .venv with the project's tested versions.
# Uses the registry that pip is configured for; does nothing when the environment is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "error: raymdm needs Python 3.10 or newer; set PYTHON to one" >&2
  exit 2
}
wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
if [ ! -f .venv/installed ] || [ "$(cat .venv/installed)" != "$wanted" ]; then
  echo "installing into $PWD/.venv (a few minutes) …" >&2
  [ -d .venv ] || "$python" -m venv .venv
  # torch first: with it in place nothing else pulls in another build of it.
  .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
  .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
  echo "$wanted" > .venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"
