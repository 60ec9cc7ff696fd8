"""Items -> records: what the model wrote, whether it is right, and the NELBO of the gold response.

A record depends on its item and the settings alone: not on the batch it was scored in, nor on the
machine. So items may be shared out in any way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raymdm.command import import_modules
from raymdm.config import Config
from raymdm.config.data import TaskSection
from raymdm.config.loading import fingerprint
from raymdm.data.collate import collate
from raymdm.data.evaluation import Item
from raymdm.decoding import Trace, generate
from raymdm.diffusion import bound
from raymdm.errors import RunError
from raymdm.evaluations.pool import Record
from raymdm.evaluations.subject import Subject, open_subject
from raymdm.evaluations.viewer import item_trace, page_name, render_trace
from raymdm.models import Backbone
from raymdm.tasks import TaskSpec, get_task
from raymdm.training.engine_run import pick_device
from raymdm.training.seeds import seed_of
from raymdm.training.starting import initial_model, model_shape
from raymdm.verdict.items import step_columns


@dataclass(frozen=True)
class Scoring:
    """How items are scored; an actor makes its own scorer from it.

    Attributes:
        source: the run directory, model folder or hub id.
        config: with a response length.
        task: what extracts and scores answers.
        start: score the run's starting weights instead.
    """

    source: str
    config: Config
    task: TaskSection
    start: bool = False

    def __call__(self) -> Callable[[list[Item]], list[Record]]:
        """Load the model; what scores items with it."""
        import_modules(self.config.imports)  # in an actor nobody has
        return self.scorer(open_subject(self.source, self.config))

    def scorer(self, subject: Subject) -> Callable[[list[Item]], list[Record]]:
        """The same where the source is open already."""
        device = pick_device(self.config)
        if self.start:
            assert subject.manifest is not None
            shape = model_shape(self.config, subject.manifest)
            model = initial_model(self.config, shape).eval().to(device)
        else:
            model = subject.load(device)
        return Scorer(model, subject, get_task(self.task), self.config).score

    def identity(self, subject: Subject, items: Sequence[Item]) -> dict[str, Any]:
        """Everything that a record depends on, to know records that were kept."""
        section, start = self.config.evaluation, seed_of(self.config, "init")
        content = [[item.number, item.id, item.input_ids, item.reference] for item in items]
        return {
            "weights": f"start of seed {start}" if self.start else subject.weights,
            "task": self.task.model_dump(),
            "template": subject.encoder.template,
            "decoding": section.decoding.model_dump(),
            "nelbo": section.nelbo.model_dump(),
            "traces": section.traces,
            "items": fingerprint({"items": content}),
        }


@dataclass(frozen=True)
class Scorer:
    """A model and everything that its responses are read with."""

    model: Backbone
    subject: Subject
    task: TaskSpec
    config: Config

    def score(self, items: list[Item]) -> list[Record]:
        """One record for each item, in their order; those to be looked at have a `page`."""
        traced = self.config.evaluation.traces
        written = self._written([item for item in items if item.number < traced], trace=True)
        written |= self._written([item for item in items if item.number >= traced], trace=False)
        return [
            {**self.record(item, *written[item.number]), **measured}
            for item, measured in zip(items, self._nats(items), strict=True)
        ]

    def _written(
        self, items: list[Item], *, trace: bool
    ) -> dict[int, tuple[list[int], Trace | None]]:
        """Responses by the items' numbers, with their traces if wanted."""
        section = self.config.evaluation
        ask: Any = generate  # its two forms return different things
        found = ask(
            self.model,
            [item.prompt for item in items],
            section.decoding,
            trace,
            numbers=[item.number for item in items],
            batch_size=section.batch_size,
        )
        responses, traces = found if trace else (found, [None] * len(items))
        return {
            item.number: (response, one)
            for item, response, one in zip(items, responses, traces, strict=True)
        }

    def record(self, item: Item, response: Sequence[int], trace: Trace | None) -> Record:
        """What the response says and whether that is right."""
        tokenizer = self.subject.encoder.tokenizer
        gold = self.subject.text(item.input_ids[len(item.prompt) :])
        record: Record = {
            **judged(self.task, self.subject.text(response), item),
            "prompt": str(tokenizer.decode(item.prompt)),
            "reference_answer": self.task.extract(gold) or gold,
        }
        if trace is not None:
            shown = item_trace(
                trace,
                tokenizer,
                item.prompt,
                self.subject.shape.eos_token_id,
                lambda text: score_item(self.task, text, item),
                item_id=item.id,
                extract=self.task.extract,
                reference_answer=record["reference_answer"],
                settings=self.config.evaluation.decoding.model_dump(),
                model=self.subject.source,
                data=self.task.name,
            )
            record["page_name"] = page_name(item.id)
            record["page"] = render_trace(shown, "../report.html")
            record |= step_columns([bool(right) for right in shown.correct])
        return record

    def _nats(self, items: list[Item]) -> list[Record]:
        """NELBO of the gold responses, batch by batch."""
        section, subject = self.config.evaluation, self.subject
        measured: list[Record] = []
        for start in range(0, len(items), section.batch_size):
            batch = items[start : start + section.batch_size]
            rows = collate(
                [item.input_ids for item in batch],
                [len(item.prompt) for item in batch],
                [item.number for item in batch],
                pad_token_id=self.model.shape.pad_token_id,
                eos_token_id=subject.shape.eos_token_id,
            ).to(next(self.model.parameters()).device)
            nats = bound(
                self.model,
                self.model.shape.mask_token_id,
                rows,
                causal=self.model.shape.causal,
                exact_up_to=section.nelbo.exact_up_to,
                draws=section.nelbo.draws,
                batch_size=section.batch_size,
            )
            measured += [
                {"nll": float(value), "nll_variance": float(variance), "tokens": int(tokens)}
                for value, variance, tokens in zip(
                    nats.per_row, nats.variance, nats.tokens, strict=True
                )
            ]
        return measured


def judged(task: TaskSpec, text: str, item: Item) -> Record:
    """What the text of a response says, and whether that is right. Raises as `score_item`."""
    record: Record = {
        "number": item.number,
        "item": item.id,
        "correct": score_item(task, text, item),
        "response": text,
        "answer": task.extract(text),
    }
    if task.counts is not None:
        record["counts"] = dict(task.counts(text, item.reference))
    return record


def score_item(task: TaskSpec, text: str, item: Item) -> float:
    """1.0 for a right response, 0.0 for a wrong one. Raises RunError where the scorer fails."""
    try:
        return float(task.score(text, item.reference))
    except Exception as error:
        raise RunError(
            f"task {task.name}: its scorer failed on item {item.id} ({type(error).__name__}: "
            f"{error}); the response was {text!r}"
        ) from error
