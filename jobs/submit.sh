#!/usr/bin/env bash
# Submit `python -m raymdm.train` to a running Ray cluster, follow its log, exit as it does.
set -euo pipefail

usage() {
  cat <<'END'
Usage: jobs/submit.sh [--address URL] [--id ID] [--verb VERB] [-- ARGUMENT...]

Uploads this checkout (without what .gitignore names), runs `python -m raymdm.train ARGUMENT...` on
the cluster's head node, follows its log, and exits with its exit status: 0 finished, 2 a mistake
in what was given, 1 anything else. Ctrl-C stops following, not the job.

  --address URL  the cluster's dashboard; else $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265
  --id ID        name of the job, new for every submission; else raymdm-DATE-TIME-PID
  --verb VERB    another verb than train, e.g. prepare, sweep or evaluate
  -h, --help     this text

ARGUMENTs are those of the verb (see `raymdm train --help`). For train without any, a model of 0.1M
parameters is trained for 200 steps on data/prepared of this checkout. The job runs in a copy of the
checkout, in another folder and perhaps on another machine: give absolute paths that every node
sees. Only run_dir has a default outside the copy: runs/ID of this checkout.

Environment: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token hold the cluster's token;
where there is one, RAY_AUTH_MODE=token is set. See jobs/README.md.

Example:
  jobs/submit.sh --id first -- -c base -c models/tiny --set data.folder=/data/addition
END
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit "${2:-2}"
}

# Follow the job's log until it ends; our exit status is the job's. (`ray job logs --follow` prints a
# failed job's log twice and always exits 1 for it.)
follow() {
  python - "$address" "$id" <<'END'
import asyncio
import sys
import time

from ray.job_submission import JobSubmissionClient, JobStatus

address, job = sys.argv[1:]
client = JobSubmissionClient(address)


async def follow() -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)


try:
    # The connection may end before the job does: its state decides.
    while not client.get_job_status(job).is_terminal():
        asyncio.run(follow())
        time.sleep(1)
except KeyboardInterrupt:
    print(f"\njob {job} goes on; ray job stop {job} --address {address} ends it", file=sys.stderr)
    sys.exit(130)
info = client.get_job_info(job)
print(f"job {job}: {info.status.value}", file=sys.stderr)
sys.exit(0 if info.status == JobStatus.SUCCEEDED else info.driver_exit_code or 1)
END
}

address=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
id=raymdm-$(date +%Y%m%d-%H%M%S)-$$
verb=train
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --address | --id | --verb)
      (($# > 1)) || fail "$1 needs a value; see --help"
      declare "${1#--}=$2"
      shift 2
      ;;
    --) shift; break ;;
    *) fail "unknown option $1 (arguments of the verb go after --); see --help" ;;
  esac
done
[[ $id =~ ^[A-Za-z0-9._-]+$ ]] || fail "--id $id: use letters, digits, dots, dashes and underscores"
[[ $verb =~ ^[a-z]+$ ]] || fail "--verb $verb: not a verb of raymdm"

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
arguments=("$@")
if [[ $verb == train ]] && ((!$#)); then
  arguments=(
    -c base -c models/tiny
    --set "data.folder=$root/data/prepared" --set training.steps=200
  )
fi
# First, so that a `--set run_dir=...` of the user's comes later and wins.
if [[ $verb == train || $verb == sweep ]]; then
  arguments=(--set "run_dir=$root/runs/$id" "${arguments[@]}")
fi

command -v ray >/dev/null || fail "ray is not on PATH; activate the environment raymdm is installed in"
if [[ -z ${RAY_AUTH_MODE:-} ]] &&
  [[ -n ${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-} || -s $HOME/.ray/auth_token ]]; then
  # Without it Ray 2.60's command line sends no token, and the cluster refuses it.
  export RAY_AUTH_MODE=token
fi
export RAY_API_SERVER_ADDRESS=$address

# Unbuffered, so that the log is followed line by line; the tests are no part of a job.
runtime_env='{"env_vars": {"PYTHONUNBUFFERED": "1"}, "excludes": ["tests"]}'
for attempt in {1..20}; do
  if output=$(ray job submit --no-wait --log-color false --submission-id "$id" \
    --working-dir "$root" --runtime-env-json "$runtime_env" \
    -- python -m "raymdm.$verb" "${arguments[@]}" 2>&1); then
    break
  fi
  # Right after `ray start` the agents that run jobs are not up yet.
  [[ $output == *"No available agent"* && $attempt -lt 20 ]] || {
    printf '%s\n' "${output##*$'\n'}" >&2 # the reason, below a long stack trace
    [[ $output != *AuthenticationError* ]] ||
      fail "the cluster wants its token: put it in ~/.ray/auth_token or set RAY_AUTH_TOKEN_PATH"
    fail "job $id was not accepted by $address; is the cluster up (jobs/README.md)?" 1
  }
  echo "no node takes jobs yet; trying again ($attempt of 20)" >&2
  sleep 3
done
printf 'job %s submitted to %s\n' "$id" "$address" >&2
follow
