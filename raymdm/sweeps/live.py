"""A sweep while it runs: in a terminal a table of arms × seeds, in a log file a line per trial."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raymdm.sweeps.board import AT_WORK, STATES, Board, Standing
from raymdm.sweeps.design import Trial
from raymdm.sweeps.plan_table import duration
from raymdm.verdict.results import setting_label

COLOURS = {
    "waiting": "dim",
    "running": "cyan",
    "scoring": "cyan",
    "finished": "green",
    "diverged": "red",
    "failed": "bold red",
}
_ARM_WIDTH = 30
"""Longer names of arms and settings are folded."""
_MOST_RUNNING = 8
"""Running trials that are listed one by one where the table shows counts only."""


@contextmanager
def watch_trials(
    title: str, trials: list[Trial], metric: str, console: Console | None = None
) -> Iterator["Watch"]:
    """Show how trials fare until the block ends; call what this gives with each that ended.

    Args:
        title: stands over the table.
        trials: all of them, also those that an earlier call finished; `add` takes those that join.
        metric: `accuracy` or `nelbo`, shown of finished trials.
        console: default: stderr.
    """
    watch = Watch(title, trials, metric, console or Console(stderr=True))
    if not watch.console.is_terminal:
        yield watch
        return
    # Whatever else is printed meanwhile, by Ray's workers too, goes above the table.
    with Live(get_renderable=watch.screen, console=watch.console, refresh_per_second=1):
        yield watch


class Watch:
    """Takes in the trials that end, and draws them all."""

    def __init__(self, title: str, trials: list[Trial], metric: str, console: Console) -> None:
        self.title, self.metric, self.console = title, metric, console
        self.board = Board(trials)
        self.started = time.monotonic()

    def add(self, trials: Iterable[Trial]) -> None:
        """Trials that join."""
        self.board.add(trials)

    def __call__(self, trial: Trial) -> None:
        """A trial ended: a line in a log file; in a terminal only where something went wrong."""
        standing = self.board.end(trial)
        if self.console.is_terminal and standing.state == "finished":
            return
        done = self.board.ended()
        seconds = time.monotonic() - self.started
        self.console.print(
            f"[{done}/{len(self.board.trials)}] {trial.name}: {outcome(standing)}  "
            f"({seconds:.0f} s)",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def screen(self) -> RenderableType:
        """The table as the run directories have it now."""
        self.board.look()
        return draw(self.title, self.board, self.metric, self.console)


def outcome(standing: Standing) -> str:
    """How a trial ended: its scores, or what went wrong."""
    if standing.state in ("failed", "diverged"):
        return f"{standing.state}: {standing.message}"
    scores = []
    if standing.accuracy is not None:
        scores.append(f"accuracy {standing.accuracy:.1%}")
    if standing.nelbo is not None:
        scores.append(f"NELBO {standing.nelbo:.4f}")
    return ", ".join(scores) or standing.state


def draw(title: str, board: Board, metric: str, console: Console) -> RenderableType:
    """All trials, one by one where the terminal has room for that, else counted by arm."""
    head = Text.assemble((title, "bold"), f"  {_progress(board)}", overflow="fold")
    for table in (seeds_table(board, metric), Group(*_running(board), counts_table(board, metric))):
        lines = console.render_lines(table, console.options.update(width=10_000), pad=False)
        width = max(sum(segment.cell_length for segment in line) for line in lines)
        if width <= console.width and len(lines) + 2 <= console.height:
            break
    return Group(head, table)


def seeds_table(board: Board, metric: str) -> Table:
    """Arms × seeds, a cell for each trial."""
    seeds = list(dict.fromkeys(trial.seed for trial in board.trials))
    table = _table(("arm", *(f"seed {seed}" for seed in seeds)))
    for name, trials in by_arm(board.trials).items():
        places = {trial.seed: trial for trial in trials}
        table.add_row(
            Text(name),
            *(
                cell(board.standing(places[seed]), metric) if seed in places else ""
                for seed in seeds
            ),
        )
    return table


def counts_table(board: Board, metric: str) -> Table:
    """How many trials of every arm are in which state, and the mean of the finished ones."""
    shown = [state for state in STATES if board.count(state)]
    table = _table(("arm", *shown, f"mean {metric}"))
    for name, trials in by_arm(board.trials).items():
        standings = [board.standing(trial) for trial in trials]
        counts = [sum(each.state == state for each in standings) for state in shown]
        scores = [score for each in standings if (score := _score(each, metric)) is not None]
        table.add_row(
            Text(name),
            *(
                Text(str(count) if count else "", style=COLOURS[state])
                for state, count in zip(shown, counts, strict=True)
            ),
            _shown(sum(scores) / len(scores), metric) if scores else "",
        )
    return table


def cell(standing: Standing, metric: str) -> Text:
    """A trial in the table: its step, loss and time left while it runs, then its score."""
    score = _score(standing, metric)
    text = standing.state if score is None else _shown(score, metric)
    if standing.state == "running":
        text = "\n".join(filter(None, _course(standing)))
    return Text(text, style=COLOURS[standing.state])


def by_arm(trials: list[Trial]) -> dict[str, list[Trial]]:
    """Trials by arm, and by setting where an arm has several: `ours (training.steps=5)`."""
    labels: dict[str, set[str]] = {}
    for trial in trials:
        labels.setdefault(trial.arm, set()).add(setting_label(trial.settings))
    rows: dict[str, list[Trial]] = {}
    for arm, found in labels.items():
        for trial in trials:
            if trial.arm == arm:
                label = setting_label(trial.settings) or "no setting"
                name = f"{arm} ({label})" if len(found) > 1 else arm
                rows.setdefault(name, []).append(trial)
    return rows


def _progress(board: Board) -> str:
    """`12 of 24 ended, 2 running, 10 waiting, about 14 min left`."""
    parts = [f"{board.ended()} of {len(board.trials)} ended"]
    parts += [f"{count} running"] if (count := board.count(*AT_WORK)) else []
    parts += [
        f"{count} {state}" for state in ("waiting", "failed") if (count := board.count(state))
    ]
    left = board.seconds_left()
    unfinished = board.count("waiting", *AT_WORK)
    return ", ".join(parts) + (
        f", about {duration(left)} left" if left is not None and unfinished else ""
    )


def _running(board: Board) -> list[Text]:
    """A line for each trial at work, as far as there is room."""
    at_work = [trial for trial in board.trials if board.standing(trial).state in AT_WORK]
    lines = []
    for trial in at_work[:_MOST_RUNNING]:
        standing = board.standing(trial)
        course = [standing.state] if standing.state == "scoring" else _course(standing)
        line = f"{trial.name}  {'  '.join(filter(None, course))}"
        lines.append(Text(line, style=COLOURS["running"]))
    if len(at_work) > _MOST_RUNNING:
        lines.append(Text(f"and {len(at_work) - _MOST_RUNNING} more running"))
    return lines


def _course(standing: Standing) -> tuple[str, str]:
    """`120/200`, and the loss with the time left; `starting` before the first step."""
    if standing.loss is None:
        return "starting", ""
    left = "" if standing.seconds_left is None else f" {duration(standing.seconds_left)}"
    return f"{standing.step}/{standing.steps}", f"{standing.loss:.3f}{left}"


def _score(standing: Standing, metric: str) -> float | None:
    return standing.accuracy if metric == "accuracy" else standing.nelbo


def _shown(score: float, metric: str) -> str:
    return f"{score:.1%}" if metric == "accuracy" else f"{score:.4f}"


def _table(headings: Iterable[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        wide = {"max_width": _ARM_WIDTH, "overflow": "fold"} if number == 0 else {"no_wrap": True}
        table.add_column(heading, **wide)  # type: ignore[arg-type]
    return table
