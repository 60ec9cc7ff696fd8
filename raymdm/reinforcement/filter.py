"""Over-denoising: which training prompts are answered rightly at some step and wrongly at the end.

The job behind `raymdm rl filter`, and what it does with some prompts, for any process that holds a
model. MDPO (arXiv 2508.13148) trains on such prompts.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import raymdm
from raymdm.command import import_modules
from raymdm.config import Config
from raymdm.config.data import TaskSection
from raymdm.config.decoding import DecodingSection
from raymdm.config.loading import fingerprint
from raymdm.data.evaluation import Item, read_items
from raymdm.data.manifest import Manifest, read_manifest
from raymdm.data.tokenizer import vocabulary_size
from raymdm.decoding import check_decoding, generate
from raymdm.decoding.schedule import fixed_length, plan
from raymdm.errors import ConfigurationError
from raymdm.evaluations.pool import Record, run_chunks
from raymdm.evaluations.result_file import ResultFile
from raymdm.evaluations.scoring import score_item
from raymdm.evaluations.settings import fixed_decoding
from raymdm.evaluations.subject import Subject, open_subject
from raymdm.models import Backbone
from raymdm.policy.texts import step_texts
from raymdm.progress import counting
from raymdm.tasks import TaskSpec, get_task
from raymdm.training.engine_run import pick_device
from raymdm.training.run_directory import read_json
from raymdm.verdict.items import first_right_step, over_denoised

_COUNTS = ("prompts", "right", "over_denoised", "rate")
_LISTED = ("number", "id", "first_right", "steps")
_UNSEEN: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda more: None)


@dataclass(frozen=True)
class Summary:
    """What a filter found.

    Attributes:
        prompts: that were answered.
        right: of these, rightly at the last step.
        over_denoised: rightly at some step, and wrongly at the last: those in the list.
        rate: over_denoised / prompts.
        path: of the list.
    """

    prompts: int
    right: int
    over_denoised: int
    rate: float
    path: Path


@dataclass(frozen=True)
class StepJudge:
    """Answers prompts and judges the text of every step.

    Attributes:
        model: ready to decode.
        tokenizer: of the model.
        task: what scores the texts.
        decoding: with a response length.
    """

    model: Backbone
    tokenizer: Any
    task: TaskSpec
    decoding: DecodingSection

    def __call__(self, items: list[Item]) -> list[Record]:
        """One record for each item, in their order: number, id, first_right (step from 1, or null),
        steps, right_steps (how many), correct (at the last) and over_denoised.

        A step's text is that of its whole prediction up to the first EOS; equal texts of an item
        are scored once. Noise, if any, is addressed by the items' numbers.

        Raises:
            RunError: the task's scorer fails.
        """
        _, traces = generate(
            self.model,
            [item.prompt for item in items],
            self.decoding,
            True,
            numbers=[item.number for item in items],
            batch_size=len(items),
        )
        return [
            self._record(item, texts)
            for item, texts in zip(
                items,
                step_texts(traces, self.tokenizer, self.model.shape.eos_token_id),
                strict=True,
            )
        ]

    def _record(self, item: Item, texts: list[str]) -> Record:
        right = {text: score_item(self.task, text, item) >= 1.0 for text in dict.fromkeys(texts)}
        correct = [right[text] for text in texts]
        return {
            "number": item.number,
            "id": item.id,
            "first_right": first_right_step(correct),
            "steps": len(correct),
            "right_steps": sum(correct),
            "correct": correct[-1],
            "over_denoised": over_denoised(correct),
        }


@dataclass(frozen=True)
class JudgeSteps:
    """Makes a `StepJudge`, in whatever process it is called.

    Attributes:
        source: run directory, model folder or hub id.
        config: with a response length.
        task: what scores the texts.
    """

    source: str
    config: Config
    task: TaskSection

    def __call__(self) -> StepJudge:
        """Load the model."""
        import_modules(self.config.imports)  # in an actor nobody has
        return self.judge(open_subject(self.source, self.config))

    def judge(self, subject: Subject) -> StepJudge:
        """The same where the source is open already."""
        return StepJudge(
            subject.load(pick_device(self.config)),
            subject.encoder.tokenizer,
            get_task(self.task),
            self.config.evaluation.decoding,
        )


def filter_prompts(
    source: str, config: Config, out: Path, *, progress: bool = False, verbose: bool = False
) -> Summary:
    """Write the list of the training prompts that a model over-denoises.

    The model answers the training prompts of `data.folder` as `evaluation.decoding` says; one that
    is interrupted goes on where it was, and a list that is there already is left as it is.

    Args:
        source: run directory, model folder or hub id.
        config: `evaluation.decoding`, `limit`, `batch_size` and `actors`; `data.folder`.
        out: the list (see `raymdm.reinforcement.prompt_list`), which may be empty; how it was made
            goes to FILE.settings.json beside it.
        progress: show it.
        verbose: show Ray's logs.

    Raises:
        ConfigurationError: decoding that cannot work, or a tokenizer that is not the data's.
        DataError: training rows without references, or a file of other settings at `out`.
        RunError: the task's scorer fails.
    """
    subject = open_subject(source, config)
    folder = Path(config.data.folder)
    manifest = read_manifest(folder)
    _check_tokens(subject, manifest, folder)
    config = fixed_decoding(config, manifest)
    decoding = config.evaluation.decoding
    if subject.shape.causal:
        raise ConfigurationError(
            f"{source}: a causal model has no denoising steps; give a masked one"
        )
    check_decoding(decoding, causal=False)
    items = read_items(folder, manifest, "train", config.evaluation.limit)
    work = JudgeSteps(subject.source, config, TaskSection.model_validate(manifest.task))
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"source": source, "raymdm": raymdm.__version__, **_sampler(decoding)}
    with ResultFile(out, _settings(subject, manifest, decoding, items), about) as file:
        if not file.complete:
            _judge_all(file, work, subject, items, progress=progress, verbose=verbose)
        counts = read_json(file.settings_file)["about"]
    return Summary(path=out, **{name: counts[name] for name in _COUNTS})


def _judge_all(
    file: ResultFile,
    work: JudgeSteps,
    subject: Subject,
    items: Sequence[Item],
    *,
    progress: bool,
    verbose: bool,
) -> None:
    left = [item for item in items if item.number not in file.done]
    make: Callable[[], StepJudge] = work
    if work.config.evaluation.actors is None:
        make = partial(work.judge, subject)
    chunks = run_chunks(
        make, left, work.config, length=lambda item: len(item.prompt), verbose=verbose
    )
    done = len(items) - len(left)
    with counting("filtering", len(items), done) if progress else _UNSEEN as advance:
        for records in chunks:
            file.append(records)
            advance(len(records))
    right = over = 0
    for row in file.rows():
        right, over = right + row["correct"], over + row["over_denoised"]
    listed = ({name: row[name] for name in _LISTED} for row in file.rows() if row["over_denoised"])
    counts = (len(items), right, over, over / len(items))
    file.finish_as(listed, dict(zip(_COUNTS, counts, strict=True)))


def _settings(
    subject: Subject, manifest: Manifest, decoding: DecodingSection, items: Sequence[Item]
) -> dict[str, Any]:
    """All that the list depends on."""
    content = [[item.number, item.id, item.prompt, item.reference] for item in items]
    return {
        "weights": subject.weights,
        "data": manifest.fingerprint,
        "prompts": {"count": len(items), "content": fingerprint({"items": content})},
        "task": manifest.task,
        "decoding": decoding.model_dump(),
    }


def _sampler(decoding: DecodingSection) -> dict[str, Any]:
    """Of the sampler what the settings may leave open."""
    length = fixed_length(decoding)
    return {
        "steps": None if decoding.threshold is not None else len(plan(decoding, length)),
        "block_length": min(decoding.block_length or length, length),
        "seed": decoding.seed,
    }


def _check_tokens(subject: Subject, manifest: Manifest, folder: Path) -> None:
    tokenizer = subject.encoder.tokenizer
    of_model = (vocabulary_size(tokenizer), tokenizer.mask_token_id, tokenizer.eos_token_id)
    of_data = (manifest.vocabulary_size, manifest.mask_token_id, manifest.eos_token_id)
    if of_model != of_data:
        raise ConfigurationError(
            f"data.folder {folder} was prepared with another tokenizer than that of "
            f"{subject.source}; prepare it with prepare.tokenizer={subject.source}"
        )
