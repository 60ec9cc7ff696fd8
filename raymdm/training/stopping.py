"""Asking a run to stop: by SIGTERM to its driver or a worker, or by notice that a node goes away.

Whoever is asked, all workers end after the same step with a checkpoint: each says in the step's own
global sum whether it was asked, so agreeing costs no message of its own.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from raymdm.training.run_directory import RunDirectory

_ASK_SECONDS = 1.0

_terminated = threading.Event()


def listen_for_sigterm() -> None:
    """From now on a SIGTERM to this process is a wish to stop; call it in the main thread.

    A second one ends the process.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if _terminated.is_set():
            raise SystemExit(128 + number)
        _terminated.set()

    _terminated.clear()
    signal.signal(signal.SIGTERM, handle)


@contextmanager
def sigterm_stops(run: RunDirectory) -> Iterator[None]:
    """Within the block, which must be in the main thread, a SIGTERM asks the run's workers to stop.

    A second one ends this process.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if run.stop_wish() is not None:
            raise SystemExit(128 + number)
        run.ask_to_stop("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopSignal:
    """Why a worker's run should stop, if it should.

    Args:
        run: its directory, where the driver leaves a wish.
        notice: asks Ray whether a node of the workers goes away; all ranks must call it together.
            None where nothing can give notice.
    """

    def __init__(self, run: RunDirectory, notice: Callable[[], str | None] | None) -> None:
        self.run, self.notice = run, notice
        self._asked = time.monotonic()

    def flags(self, first: bool) -> tuple[bool, bool]:
        """For the step's global sum: this worker was asked to stop; it is time to ask for notice.

        Args:
            first: this is rank 0, which looks for the driver's wish and at the clock.
        """
        stop = _terminated.is_set() or (first and self.run.stop_wish() is not None)
        due = first and self.notice is not None and time.monotonic() - self._asked > _ASK_SECONDS
        return stop, due

    def reason(self, stops: float, due: float) -> str | None:
        """Why to stop, from the sums of the flags over all workers; every rank must call it."""
        if stops:
            return self.run.stop_wish() or "SIGTERM to a worker"
        if due and self.notice is not None:
            self._asked = time.monotonic()
            return self.notice()
        return None
