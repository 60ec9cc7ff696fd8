"""`jobs/submit.sh` as a user meets it, on a cluster of its own."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prepared import write_prepared

SUBMIT = Path(__file__).parent.parent / "jobs" / "submit.sh"
BIN = Path(sys.executable).parent


def _submit(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SUBMIT), *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_script_is_sound_and_helps() -> None:
    subprocess.run(["bash", "-n", str(SUBMIT)], check=True)
    assert os.access(SUBMIT, os.X_OK)
    help_ = _submit("--help")
    assert help_.returncode == 0
    assert help_.stdout.startswith("Usage: jobs/submit.sh")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "unknown option --nonsense"),
        (["--id"], "--id needs a value"),
        (["--id", "a b"], "--id a b: use letters"),
        (["--verb", "x;y"], "--verb x;y: not a verb"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(arguments: list[str], message: str) -> None:
    result = _submit(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@dataclass(frozen=True)
class Cluster:
    address: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head on free ports, with a token; ended through the process that was started here.

    Never by `ray stop`, which would end every Ray on the machine.
    """
    # Ray's socket paths are short of room: not pytest's own long folder.
    folder = Path(tempfile.mkdtemp(prefix="raymdm-"))
    (folder / "token").write_text(secrets.token_hex(32))
    # As for a user who has just made a token: the mode is left for Ray and the script to find.
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env |= {"RAY_AUTH_TOKEN_PATH": str(folder / "token"), "PATH": f"{BIN}:{env['PATH']}"}
    port, dashboard, agent, client = _free_ports(4)
    command = [
        *("ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2"),
        *("--port", port, "--ray-client-server-port", client, "--temp-dir", str(folder)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard),
        *("--dashboard-agent-listen-port", agent, "--object-store-memory", "200000000"),
    ]
    with open(folder / "head.log", "wb") as log:
        # Its own session, by which its children are found again.
        head = subprocess.Popen(
            [str(BIN / "ray"), *command[1:]],
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(int(dashboard), head)
        yield Cluster(f"http://127.0.0.1:{dashboard}", env)
    finally:
        head.terminate()
        head.wait(timeout=60)
        _wait_until_gone(head.pid)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(port: int, head: "subprocess.Popen[bytes]") -> None:
    for _ in range(120):
        assert head.poll() is None, "the head ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no dashboard on port {port}")


def _wait_until_gone(session: int) -> None:
    for _ in range(60):
        if not _alive(session):
            return
        time.sleep(0.5)
    pytest.fail(f"the cluster left processes: {_alive(session)}")


def _alive(session: int) -> list[str]:
    lines = subprocess.run(
        ["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    fields = [line.split(maxsplit=2) for line in lines]
    return [f[2] for f in fields if f[0] == str(session) and not f[1].startswith("Z")]


@pytest.mark.slow
@pytest.mark.ray
def test_a_submitted_job_trains(cluster: Cluster, tmp_path: Path) -> None:
    """The first submission comes right after the start, when no agent may be there yet."""
    data = write_prepared(tmp_path / "prepared")
    run_dir = tmp_path / "a run"  # with a blank: arguments arrive as they were given
    result = _submit(
        *("--address", cluster.address, "--id", "training", "--"),
        *("-c", "models/tiny", "--set", f"data.folder={data}", "--set", f"run_dir={run_dir}"),
        *("--set", "training.steps=5", "--set", "training.batch_size=16"),
        env=cluster.env,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "job training: SUCCEEDED" in result.stderr
    assert "finished 5 steps" in result.stdout
    assert (run_dir / "metrics.parquet").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_a_mistake_comes_back_as_the_jobs_status(cluster: Cluster) -> None:
    result = _submit(
        *("--address", cluster.address, "--id", "mistake", "--", "--set", "training.stepz=5"),
        env=cluster.env,
    )
    assert result.returncode == 2
    assert "job mistake: FAILED" in result.stderr
    assert "did you mean 'training.steps'" in result.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_a_cluster_asks_for_its_token(cluster: Cluster, tmp_path: Path) -> None:
    env = {k: v for k, v in cluster.env.items() if k != "RAY_AUTH_TOKEN_PATH"}
    result = _submit("--address", cluster.address, env={**env, "HOME": str(tmp_path)})
    assert result.returncode == 2
    assert "the cluster wants its token" in result.stderr
