"""lm-evaluation-harness: its tasks for our models (`raymdm evaluate --lm-eval TASK…`).

    python -m raymdm.evaluations.harness --tasks piqa --model raymdm --model_args pretrained=RUN

is the harness's own command line with our models in its registry: version 0.4.13 has no entry
points that could bring them there, so its `lm_eval` command does not know them.
"""

import importlib.util
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymdm.config.decoding import DecodingSection
from raymdm.config.evaluation import NelboSection
from raymdm.data.encoding import Encoder
from raymdm.errors import ConfigurationError, DataError
from raymdm.models import Backbone
from raymdm.tasks.template import nearest

_KEPT = (
    "results",
    "groups",
    "group_subtasks",
    "versions",
    "n-shot",
    "n-samples",
    "higher_is_better",
)
# Resamples for the standard error of metrics without a formula; the harness's 100,000 take minutes.
_RESAMPLES = 1000
_SEED = 1234


def run_harness(
    model: Backbone,
    encoder: Encoder,
    tasks: Sequence[str],
    decoding: DecodingSection,
    nelbo: NelboSection,
    *,
    limit: int | None = None,
    include_path: Path | None = None,
    few_shot: int | None = None,
    batch_size: int = 64,
    trust_remote_code: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate a model on tasks of lm-evaluation-harness.

    The harness may read data sets from the hub, as its tasks say; nothing is cached beside them,
    and no code of the hub is run unasked. Nothing is written to stdout.

    Args:
        model: on its device, in evaluation mode.
        encoder: its tokenizer; under the template `chat` contexts are chats, with few-shot examples
            as turns.
        tasks: names of tasks, groups or tags, patterns such as `mmlu_*`, or YAML files.
        decoding: of `generate_until`; see `HarnessModel`.
        nelbo: of log-likelihoods.
        limit: only the first so many documents of every task.
        include_path: a folder with task files of one's own; their `!function` code is run.
        few_shot: examples in every context; None for what each task says.
        batch_size: rows of one forward; does not change a result beyond rounding.
        trust_remote_code: metrics may be loaded from the hub, which runs code of theirs.
        progress: show bars on stderr.

    Returns:
        JSON-ready: `results` (task -> figures such as `acc,none`, with standard errors such as
        `acc_stderr,none`), `groups` where there are any, versions, counts, and the settings.

    Raises:
        ConfigurationError: lm-eval is not installed, an unknown task (names the nearest), or one
            that cannot be run here.
        DataError: a task's data cannot be loaded.
    """
    require_harness()
    from lm_eval import evaluate

    from raymdm.evaluations.harness_model import HarnessModel

    adapter = HarnessModel(
        model, encoder, decoding, nelbo, batch_size=batch_size, progress=progress
    )
    chat = encoder.template == "chat"
    with (
        redirect_stdout(sys.stderr),
        _no_code_of_the_hub(trust_remote_code),
        _one_process(),
        _seeded(),
    ):
        manager, names = find_tasks(tasks, include_path)
        loaded = load_tasks(manager, names)
        for task in loaded["tasks"].values():
            _set_examples(task, few_shot)
        found = evaluate(
            adapter,
            loaded,
            limit=limit,
            bootstrap_iters=_RESAMPLES,
            log_samples=False,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )
    assert found is not None
    kept = {key: found[key] for key in _KEPT if key in found}
    settings = {"lm_eval": version("lm_eval"), "limit": limit, "chat_template": chat}
    return json.loads(json.dumps({**kept, **settings, **adapter.get_model_info()}, default=_plain))


def require_harness() -> None:
    """Raises ConfigurationError where lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigurationError(
            "--lm-eval needs the package lm-eval, which is not installed: "
            "pip install 'raymdm[lm-eval]'"
        )


def find_tasks(tasks: Sequence[str], include_path: Path | None) -> tuple[Any, list[str]]:
    """The harness's task manager, and the tasks' names with patterns filled in.

    Its own 14,000 tasks take seconds to index, and are left out where all that is asked for lies in
    `include_path`.

    Raises:
        ConfigurationError: an unknown task, or no such folder.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None:
        if not include_path.is_dir():
            raise ConfigurationError(f"--include-path {include_path}: there is no such folder")
        own = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(tasks) <= set(own.all_subtasks):
            return own, list(tasks)
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    names: list[str] = []
    for task in tasks:
        if task in manager.all_tasks or Path(task).suffix in (".yaml", ".yml"):
            matches = [task]
        else:
            matches = manager.match_tasks([task]) if "*" in task else []
        if not matches:
            raise ConfigurationError(
                f"--lm-eval {task}: lm-evaluation-harness has no such task"
                f"{nearest(task, manager.all_tasks)}; `lm_eval ls tasks` lists them all"
            )
        names += matches
    return manager, names


def load_tasks(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    """The tasks and groups with their data, as the harness's `evaluate` takes them.

    Raises:
        DataError: a task file or its data cannot be loaded.
        ConfigurationError: tasks that run a model's output as code, or that show pictures.
    """
    try:
        loaded = dict(manager.load(list(names)))
    except Exception as error:  # the hub, the file system and tasks' own code fail as they like
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"--lm-eval {', '.join(names)}: a task or its data cannot be loaded ({reason}); check "
            "the network, or give task and data with --include-path"
        ) from error
    for name, task in loaded["tasks"].items():
        _check_task(name, task)
    return loaded


def _check_task(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigurationError(
            f"--lm-eval {name}: this task runs what the model writes as code, which is never done "
            "here; leave it out"
        )
    if getattr(task, "MULTIMODAL", False):
        raise ConfigurationError(f"--lm-eval {name}: this task needs a model that sees pictures")
    if getattr(task.config, "process_results", None) is not None:
        return  # the task scores by itself
    for metric, function in (getattr(task, "_metric_fn_list", None) or {}).items():
        if function is None:
            raise ConfigurationError(
                f"--lm-eval {name}: the metric {metric!r} is none of lm-evaluation-harness's own, "
                "and code from the hub is not run unasked; use another, or trust_remote_code"
            )


def _set_examples(task: Any, few_shot: int | None) -> None:
    """How many examples a context has; a task that asks for 0 keeps that, as in the harness."""
    own = task.get_config("num_fewshot")
    if own is None or (few_shot is not None and own != 0):
        task.set_config(key="num_fewshot", value=few_shot or 0)
    task.set_fewshot_seed(seed=_SEED)


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the generators that tasks' own code shuffles by, as the harness's command line does."""
    before = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(_SEED)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextmanager
def _no_code_of_the_hub(trusted: bool) -> Iterator[None]:
    """Keep `evaluate`, where the harness looks for metrics it lacks, from fetching their code."""
    from evaluate import config

    before = config.HF_EVALUATE_OFFLINE
    config.HF_EVALUATE_OFFLINE = before or not trusted
    try:
        yield
    finally:
        config.HF_EVALUATE_OFFLINE = before


@contextmanager
def _one_process() -> Iterator[None]:
    """Let the harness resample in this process: forks of one with threads may hang."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _plain(value: Any) -> Any:
    """What JSON lacks: numbers of numpy, and by name whatever else the harness reports."""
    return value.item() if hasattr(value, "item") else str(value)


def main() -> None:
    """The harness's command line, with our models known to it."""
    require_harness()
    importlib.import_module("raymdm.evaluations.harness_model")
    importlib.import_module("lm_eval.__main__").cli_evaluate()


if __name__ == "__main__":
    main()
