"""Checks in a process of their own: time limits, crashes, and who may ask."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raymdm.errors import RunError
from raymdm.tasks import math_answers
from raymdm.tasks.timed import CheckerProcess, Reply

CHECKER = """
import os, signal, time
from raymdm.tasks.timed import serve

def check(request):
    print("what a library prints is no reply")
    if request == "hang":
        time.sleep(60)
    if request == "spin":
        while True:
            pass
    if request == "compute":
        return len(str(7 ** 7 ** 10))
    if request == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if request == "raise":
        raise ValueError("no")
    if request == "process":
        return os.getpid()
    return request

serve(check)
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "checker.py"
    path.write_text(CHECKER)
    return sys.executable, str(path)


@pytest.fixture
def checker(command: tuple[str, str]) -> Iterator[CheckerProcess]:
    checker = CheckerProcess(command, limit=1.0)
    yield checker
    checker.close()


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_end(process: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            pytest.fail(f"process {process} was still there")
        time.sleep(0.05)


def test_what_is_asked_comes_back(checker: CheckerProcess) -> None:
    for request in ("a", ["½", {"b": None}], "x" * 300_000, "two\nlines"):
        assert checker.ask(request) == Reply(request)


@pytest.mark.parametrize("request_", ["hang", "spin", "compute"])
def test_a_check_that_hangs_costs_its_limit_and_that_answer_only(
    checker: CheckerProcess, request_: str
) -> None:
    checker.limit = 0.3
    first = checker.ask("process").value
    started = time.monotonic()
    assert checker.ask(request_) == Reply(None, "timed_out")
    assert time.monotonic() - started < 5
    assert not is_alive(first)
    checker.limit = 20
    assert checker.ask("after") == Reply("after")


@pytest.mark.parametrize("request_", ["crash", "raise"])
def test_a_check_that_crashes_costs_that_answer_only(
    checker: CheckerProcess, request_: str
) -> None:
    assert checker.ask(request_) == Reply(None, "crashed")
    assert checker.ask("after") == Reply("after")


def test_a_checker_that_was_killed_between_two_checks_is_replaced(checker: CheckerProcess) -> None:
    first = checker.ask("process").value
    os.kill(first, signal.SIGKILL)
    wait_for_end(first, 5)
    assert checker.ask("after") == Reply("after")


def test_one_process_answers_all_and_an_exception_does_not_end_it(checker: CheckerProcess) -> None:
    first = checker.ask("process")
    checker.ask("raise")
    assert checker.ask("process") == first


def test_threads_may_ask_at_once(checker: CheckerProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert [reply.value for reply in pool.map(checker.ask, range(100))] == list(range(100))


def ask_in_a_fork(checker: CheckerProcess, queue: Any) -> None:
    queue.put((checker.ask("process").value, checker.ask("mine").value))
    checker.close()


def test_a_daemonic_and_forked_process_asks_its_own_checker(checker: CheckerProcess) -> None:
    ours = checker.ask("process").value
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    held, released = threading.Event(), threading.Event()

    def hold() -> None:  # a fork copies the lock as it is at that moment
        with checker._lock:
            held.set()
            released.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    child = context.Process(target=ask_in_a_fork, args=(checker, queue), daemon=True)
    child.start()
    theirs, answer = queue.get(timeout=60)
    child.join(20)
    released.set()
    thread.join(20)
    assert answer == "mine"
    assert theirs != ours
    assert checker.ask("process").value == ours


@pytest.mark.parametrize("last", ["'a'", "'spin'"])
def test_it_ends_when_the_process_that_asks_is_killed(command: tuple[str, str], last: str) -> None:
    """Idle it sees its input close; in the middle of a check a timer ends it."""
    code = f"""
        import threading
        from raymdm.tasks.timed import CheckerProcess
        checker = CheckerProcess({command!r}, limit=0.5)
        print(checker.ask("process").value, flush=True)
        checker.limit = 1.0
        threading.Thread(target=checker.ask, args=({last},), daemon=True).start()
        threading.Event().wait(60)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as asking:
        assert asking.stdout is not None
        process = int(asking.stdout.readline())
        time.sleep(0.3)
        assert is_alive(process)
        asking.kill()
    wait_for_end(process, 10)


def test_a_checker_that_does_not_start_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name")
    checker = CheckerProcess((sys.executable, str(path)))
    with pytest.raises(RunError, match=r"does not start; see why with `.*broken\.py"):
        checker.ask("a")


def test_the_folder_it_is_asked_from_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file there may be called like a module of the standard library."""
    (tmp_path / "numbers.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    checker = CheckerProcess(math_answers.CHECKER.command)
    assert checker.ask([r"\frac{1}{2}", "0.5"]) == Reply(True)
    checker.close()


def test_the_mathematics_checker_imports_no_torch() -> None:
    code = (
        "import sys, raymdm.tasks.math_checker; sys.exit('torch' in sys.modules or 'ray' in "
        "sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_answer_that_cannot_be_computed_is_wrong_and_counted(
    monkeypatch: pytest.MonkeyPatch, checker: CheckerProcess
) -> None:
    """The limit holds in the task: the figures say how many answers were lost to it."""
    monkeypatch.setattr(math_answers, "CHECKER", checker)
    checker.limit = 0.3
    math_answers.check.cache_clear()
    asked: list[Any] = []
    ask = checker.ask

    def hang(request: list[str]) -> Reply:
        asked.append(request)
        return ask({"9": "hang", "8": "raise"}.get(request[1], request == ["7", "7.0"]))

    monkeypatch.setattr(checker, "ask", hang)
    results = {}
    for answer in ("7.0", "9", "8"):
        text, reference = rf"\boxed{{{answer}}}", {"answer": "7"}
        results[answer] = (
            math_answers.score(text, reference),
            math_answers.counts(text, reference),
        )
    nothing = {"checks": 1, "checks_timed_out": 0, "checks_crashed": 0}
    assert results == {
        "7.0": (1.0, nothing),
        "9": (0.0, {**nothing, "checks_timed_out": 1}),
        "8": (0.0, {**nothing, "checks_crashed": 1}),
    }
    assert len(asked) == 3, "each is checked once, not once for the score and once for the counts"
    assert math_answers.counts("no answer", {"answer": "7"})["checks"] == 0
    math_answers.check.cache_clear()


def test_a_formula_that_would_fill_the_memory_is_only_wrong() -> None:
    checker = CheckerProcess(math_answers.CHECKER.command, limit=2.0)
    reply = checker.ask(["1", r"10^{10^{10^{10}}}"])
    assert reply.value is not True
    assert checker.ask(["1", "1.0"]) == Reply(True)
    checker.close()
