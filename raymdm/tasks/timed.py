"""Checks that may hang or crash: in a process of their own, with a time limit for each.

`CheckerProcess` is the side that asks, `serve` the main loop of the side that answers. They speak
JSON, a line for each request and reply, so the checker can be asked from any thread, from a
daemonic process and from a Ray worker, and nothing that a model wrote is unpickled or run. A
request costs about a tenth of a millisecond beside the check itself.

A check that exceeds its limit costs that answer only: the process is killed and the next request
starts another. The checker ends when the process that asks ends: its input closes, and a timer of
the operating system ends it where it hangs at that moment.
"""

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raymdm.errors import RunError

LIMIT_S = 5.0
"""Seconds that one check may take."""
START_LIMIT_S = 120.0
"""Seconds until the checker must be ready: sympy takes one to import, on a busy machine many."""

Failure = Literal["", "timed_out", "crashed"]


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    Attributes:
        value: the check's result; None where it failed.
        failure: `timed_out` (killed after its limit), `crashed` (the process ended or the check
            raised an exception), or empty.
    """

    value: Any = None
    failure: Failure = ""


class CheckerProcess:
    """Another process that answers requests, started at the first one and replaced when it is lost.

    One request at a time: threads wait for each other. A forked child starts its own.

    Args:
        command: Program and arguments; it calls `serve`. No shell is involved.
        limit: Seconds for each request.
    """

    def __init__(self, command: Sequence[str], limit: float = LIMIT_S) -> None:
        self.command = tuple(command)
        self.limit = limit
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        _checkers.add(self)

    def ask(self, request: Any) -> Reply:
        """The reply to a request (anything that JSON can say).

        Raises:
            RunError: the checker does not start at all.
        """
        with self._lock:
            process = self._running()
            try:
                _write(process, {"request": request, "limit": self.limit})
                line = _read_line(process, self.limit)
            except (TimeoutError, EOFError, OSError) as error:
                self._end()
                return Reply(failure="timed_out" if isinstance(error, TimeoutError) else "crashed")
        reply = json.loads(line)
        return Reply(failure="crashed") if "error" in reply else Reply(reply["value"])

    def close(self) -> None:
        """End the process; a later request starts another."""
        with self._lock:
            self._end()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        # The same modules as here, whatever folder this process runs in; `-m` would put the
        # current folder first, and a file there might be called like a module.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
        self._process = process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=os.sep,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            _read_line(process, START_LIMIT_S)
        except (TimeoutError, EOFError) as error:
            self._end()
            raise RunError(
                "the process that checks answers does not start; see why with "
                f"`{shlex.join(self.command)} < /dev/null`"
            ) from error
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        self._close_pipes(process)
        process.wait()

    def _forget(self) -> None:
        """In a forked child: process and pipes belong to the parent, this one starts its own."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            self._close_pipes(process)
            process.returncode = 0  # not ours to wait for

    @staticmethod
    def _close_pipes(process: "subprocess.Popen[bytes]") -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def serve(check: Callable[[Any], Any]) -> None:
    """Answer requests from standard input until it ends. The checker's main loop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        # Whoever asked kills this process at the limit. If that one is gone, nobody does but the
        # operating system, which also ends a computation that never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, 2 * asked["limit"] + 1)
        try:
            reply = {"value": check(asked["request"])}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies, flush=True)


def _write(process: "subprocess.Popen[bytes]", content: Any) -> None:
    assert process.stdin is not None
    data = memoryview(json.dumps(content).encode() + b"\n")
    while data:
        data = data[process.stdin.write(data) :]


def _read_line(process: "subprocess.Popen[bytes]", limit: float) -> bytes:
    """The next line. Raises TimeoutError after `limit` seconds, EOFError where there is none."""
    assert process.stdout is not None
    deadline = time.monotonic() + limit
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        # poll, not select: a trainer's process may have more than 1024 files open.
        waiting = select.poll()
        waiting.register(process.stdout, select.POLLIN | select.POLLHUP)
        if left <= 0 or not waiting.poll(left * 1000):
            raise TimeoutError
        part = process.stdout.read(1 << 16)
        if not part:
            raise EOFError
        line += part
    return line


_checkers: "weakref.WeakSet[CheckerProcess]" = weakref.WeakSet()


def _forget_all() -> None:
    for checker in list(_checkers):
        checker._forget()


os.register_at_fork(after_in_child=_forget_all)
