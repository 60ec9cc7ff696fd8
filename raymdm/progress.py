"""Progress on stderr: a live bar in a terminal, a line now and then in a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from raymdm.training.run_directory import RunDirectory

_LINE_SECONDS = 10.0


@contextmanager
def follow(run: RunDirectory) -> Iterator[None]:
    """Show the run's `status.json` as it changes: loss, tokens per second, time left."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def counting(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` things are done; call what this gives with each further number.

    Args:
        what: is being done, e.g. `decoding`.
        total: things in all.
        done: of these, before the start.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda more: bar.advance(task, more)
        return
    started = shown = time.monotonic()
    finished = done

    def advance(more: int) -> None:
        nonlocal shown, finished
        finished += more
        now = time.monotonic()
        if now - shown > _LINE_SECONDS:
            shown = now
            left = (now - started) * (total - finished) / max(1, finished - done)
            line = f"{what} {finished:,}/{total:,}  {_duration(left)} left"
            print(line, file=sys.stderr, flush=True)

    yield advance


def _watch(run: RunDirectory, stop: threading.Event) -> None:
    console = Console(stderr=True)
    if not console.is_terminal:
        shown = time.monotonic()
        last = None
        while not stop.wait(0.5):
            line = status_line(run.status())
            if time.monotonic() - shown > _LINE_SECONDS and line != last:
                shown, last = time.monotonic(), line
                print(line, file=sys.stderr, flush=True)
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("starting workers …", total=None)
        while not stop.wait(0.25):
            _update(bar, task, run.status())
        _update(bar, task, run.status())


def _update(bar: Progress, task: Any, status: dict[str, Any]) -> None:
    if status.get("steps"):
        started = status.get("loss") is not None
        bar.update(
            task,
            total=status["steps"] if started else None,
            completed=status.get("step", 0),
            description=status_line(status),
        )


def status_line(status: dict[str, Any]) -> str:
    """`step 120/200  loss 1.234  3,100 tokens/s  42 s left` from a `status.json`."""
    parts = [f"step {status.get('step', 0)}/{status.get('steps', '?')}"]
    if status.get("loss") is not None:
        parts.append(f"loss {status['loss']:.4f}")
        if status.get("reward") is not None:
            parts.append(f"reward {status['reward']:.3f}")
    elif status.get("message"):
        parts.append(status["message"])
    if status.get("tokens_per_second") is not None:
        parts.append(f"{status['tokens_per_second']:,.0f} tokens/s")
    if status.get("seconds_left") is not None:
        parts.append(f"{_duration(status['seconds_left'])} left")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
