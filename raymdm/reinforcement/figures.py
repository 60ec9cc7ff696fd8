"""`rl.html` of a run: its rounds in pictures and a table, from `metrics.parquet` alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from raymdm.errors import DataError
from raymdm.evaluations.pages import write_page
from raymdm.reinforcement import curves, samples
from raymdm.training.run_directory import RunDirectory
from raymdm.verdict.pages import templates

_AVERAGED: dict[str, tuple[str, Callable[[float], str]]] = {
    "reward": ("reward of the rollouts", "{:.3f}".format),
    "over_denoising_rate": ("over-denoised", "{:.1%}".format),
    "kl": ("KL to the reference", "{:.3g}".format),
    "ratio_deviation": ("deviation of the ratios", "{:.3g}".format),
    "clipped_share": ("clipped", "{:.2%}".format),
    "skipped_groups": ("share of skipped groups", "{:.1%}".format),
    "trained_rows": ("rows trained on a round", "{:.0f}".format),
    "rollout_tokens_per_second": ("rollout tokens a second", "{:,.0f}".format),
    "tokens_per_second": ("trained tokens a second", "{:,.0f}".format),
    "staleness": ("staleness of the rollouts' weights", "{:.3g}".format),
}
"""Columns whose means over the first and the last rounds are told."""
_COUNTED = {
    "rewards_timed_out": "rewards that took too long",
    "rewards_crashed": "rewards that crashed",
}


def write_figures(run_dir: Path) -> Path:
    """Write `rl.html` of a run and return its path.

    One row of `metrics.parquet` is one round; a column that is missing or empty has no picture.

    Raises:
        DataError: no readable metrics there, or the page cannot be written.
    """
    metrics = RunDirectory(run_dir).metrics
    try:
        rounds = pd.read_parquet(metrics)
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{metrics}: no readable metrics ({reason}); has the run made a round?"
        ) from error
    if "step" in rounds:
        rounds = rounds.drop_duplicates("step", keep="last").set_index("step").sort_index()
    else:
        rounds.index = rounds.index + 1
    linked = run_dir / "samples" / samples.INDEX
    link = str(linked.relative_to(run_dir)) if linked.exists() else None
    return write_page(run_dir / "rl.html", render(rounds, run_dir.name, link))


def render(rounds: pd.DataFrame, run: str, link: str | None = None) -> str:
    """The page as text. Whatever comes from the run is escaped.

    Args:
        rounds: the metrics, their index the round.
        run: its name.
        link: of the index of sample rollouts, as seen from the page.
    """
    first, last = curves.ends(rounds)
    page = templates("raymdm.reinforcement").get_template("rl.html.j2")
    return page.render(
        run=run,
        rounds=len(rounds),
        compared=len(first),
        link=link,
        figures=[
            (label, spelled(before.mean()), spelled(after.mean()))
            for column, (label, spelled) in _AVERAGED.items()
            if len(before := curves.measured(first, column))
            and len(after := curves.measured(last, column))
        ],
        facts=list(_facts(rounds)),
        sections=[(title, pictures) for title, pictures in _sections(rounds) if pictures],
    )


def _facts(rounds: pd.DataFrame) -> Iterator[str]:
    held_out = curves.measured(rounds, "validation_reward")
    if len(held_out):
        best = held_out.idxmax()
        told = {held_out.index[0]: "first", held_out.index[-1]: "last", best: "best"}
        yield "held-out reward: " + ", ".join(
            f"{held_out[round_]:.3f} at round {round_} ({which})" for round_, which in told.items()
        )
    rollouts = curves.measured(rounds, "rollouts")
    if len(rollouts):
        yield f"{rollouts.iloc[-1]:,.0f} rollouts"
    for column, label in _COUNTED.items():
        count = curves.measured(rounds, column).sum()
        if count:
            yield f"{label}, and count 0: {count:,.0f}"
    seconds = curves.measured(rounds, "seconds")
    if len(seconds):
        yield f"{seconds.iloc[-1] / 60:,.1f} minutes in all"


def _sections(rounds: pd.DataFrame) -> Iterator[tuple[str, list[Markup]]]:
    drawn = {
        "Rewards": [
            curves.reward_plot(rounds),
            curves.by_step_plot(rounds),
            curves.curve_plot(rounds, "over_denoising_rate", "over-denoised", percent=True),
        ],
        "The policy": [
            curves.curve_plot(rounds, "kl", "KL to the reference"),
            curves.ratio_plot(rounds),
            curves.curve_plot(rounds, "clipped_share", "clipped", percent=True),
            curves.curve_plot(rounds, "skipped_groups", "share of skipped groups"),
            curves.curve_plot(rounds, "loss", "loss"),
            curves.curve_plot(rounds, "gradient_norm", "gradient norm"),
        ],
        "Time": [
            curves.seconds_plot(rounds),
            curves.curve_plot(rounds, "rollout_tokens_per_second", "rollout tokens a second"),
        ],
    }
    for title, pictures in drawn.items():
        yield title, [Markup(picture) for picture in pictures if picture]
