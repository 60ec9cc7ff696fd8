"""`samples/` of a run: how some of its rollouts were denoised, round by round.

One page of the trace viewer for each (`raymdm.evaluations.viewer`) and an index of them all, which
need no network and no model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.text import response_text
from raymdm.evaluations.pages import write_page
from raymdm.evaluations.viewer import item_trace, outcome, page_name, render_trace
from raymdm.models import ModelShape
from raymdm.policy.rows import Rollout
from raymdm.tasks import TaskSpec
from raymdm.verdict.pages import templates

INDEX = "index.html"
_LIST = "samples.json"
"""What the index is made of, a row for every page."""


@dataclass(frozen=True)
class Sample:
    """A rollout of S steps that is to be shown.

    Attributes:
        rollout: with its `whole` trace.
        item: name of its prompt.
        reference_answer: its text; empty where there is none.
        rewards: [S], of every step's text.
        correct: [S], the reward `correct` alone, 1.0 for right; None where the run has no such
            reward, and then nothing says what is right.
    """

    rollout: Rollout
    item: str
    reference_answer: str
    rewards: Sequence[float]
    correct: Sequence[float] | None


def write_samples(
    folder: Path,
    round_: int,
    samples: Sequence[Sample],
    tokenizer: Any,
    shape: ModelShape,
    task: TaskSpec,
    settings: DecodingSection,
    *,
    model: str = "",
) -> Path:
    """Write `round-00000050-ITEM.html` for every sample of a round, then the index, and return its
    path. A round that is written again, as after a resume, takes the place of the earlier one.

    Args:
        folder: `samples` of the run directory; made where it is missing.
        round_: counted from 1.
        samples: any of the round's rollouts.
        tokenizer: of the model.
        shape: names its EOS.
        task: finds the answers in texts.
        settings: of the rollouts.
        model: what wrote the rollouts.

    Raises:
        DataError: the folder cannot be written to.
    """
    rows = [row for row in _listed(folder) if row["round"] != round_]
    for sample in samples:
        name = f"{sample.item}, rollout {sample.rollout.rollout}"
        shown = item_trace(
            sample.rollout.trace,
            tokenizer,
            sample.rollout.prompt,
            shape.eos_token_id,
            _known(sample, tokenizer, shape.eos_token_id),
            item_id=f"{name}, round {round_}",
            reference_answer=sample.reference_answer,
            extract=task.extract,
            settings=settings.model_dump(),
            model=model,
            data=task.name,
        )
        page = f"round-{round_:08d}-{page_name(name)}"
        write_page(folder / page, render_trace(shown, INDEX))
        kind, sentence = outcome(shown)
        rows.append(
            {
                "round": round_,
                "name": name,
                "page": page,
                "reward": sample.rewards[-1],
                "greatest": max(sample.rewards),
                "kind": kind,
                "sentence": sentence,
            }
        )
    rows.sort(key=lambda row: row["round"])
    write_page(folder / _LIST, json.dumps(rows, indent=1) + "\n")
    return write_page(folder / INDEX, _index(rows))


def _known(sample: Sample, tokenizer: Any, eos_token_id: int) -> Any:
    """Text of a step -> whether it is right, as the run has found; None where it has not asked."""
    if sample.correct is None:
        return None
    predictions = sample.rollout.trace.predictions.tolist()
    texts = [response_text(tokenizer, row, eos_token_id) for row in predictions]
    return dict(zip(texts, sample.correct, strict=True)).__getitem__


def _index(rows: Sequence[Mapping[str, Any]]) -> str:
    scored = [row for row in rows if row["kind"] != "unknown"]
    over = sum(row["kind"] == "over" for row in scored)
    page = templates("raymdm.reinforcement").get_template("samples.html.j2")
    return page.render(rows=rows[::-1], scored=len(scored), over=over)


def _listed(folder: Path) -> list[dict[str, Any]]:
    """The rows of earlier rounds; none of a list that cannot be read, which only pictures lose."""
    try:
        rows = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        return [row for row in rows if (folder / row["page"]).exists()]
    except (OSError, ValueError):
        return []
