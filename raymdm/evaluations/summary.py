"""The figures of an evaluation, each with its uncertainty and with all that it depends on."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from raymdm.config.evaluation import EvaluationSection
from raymdm.diffusion import perplexity_bound
from raymdm.tasks import TaskSpec
from raymdm.verdict.items import ratio_of_sums, share, step_rates, wilson

_PACKAGES = ("raymdm", "torch", "transformers", "math-verify", "reasoning-gym")


def sampler_settings(evaluation: EvaluationSection, causal: bool) -> dict[str, Any]:
    """What responses were written with, and how their likelihood was measured.

    Two scores can be compared only where `decoding` and `nelbo` are the same. `sampler` and `bound`
    follow from the kind of model and are no part of that: causal and masked arms may share them.
    """
    return {
        "bound": "exact_likelihood" if causal else "nelbo",
        "nelbo": evaluation.nelbo.model_dump(),
        "sampler": "left_to_right" if causal else "masked",
        "decoding": evaluation.decoding.model_dump(),
    }


def summarize(
    table: pd.DataFrame,
    sampler: Mapping[str, Any] | None,
    task: TaskSpec,
    *,
    rows: str,
    seconds: float,
) -> dict[str, Any]:
    """The figures over all items; they can be compared with those of the same split and items.

    Args:
        table: a row per item: correct, answer, nll, nll_variance, tokens; counts and the columns of
            traces where there are any.
        sampler: `sampler_settings` of what wrote the responses; None where that is not known, nor
            any likelihood.
        task: names the figures beside accuracy.
        rows: which rows these are: a split, or a file.
        seconds: that scoring took.
    """
    correct = table["correct"].to_numpy()
    accuracy, extracted = share(correct), share(table["answer"].notna().to_numpy())
    summary: dict[str, Any] = {
        "task": task.name,
        "split": rows,
        "items": len(table),
        "accuracy": accuracy.value,
        "accuracy_standard_error": accuracy.standard_error,
        "accuracy_interval": list(wilson(correct)),
        "extraction_rate": extracted.value,
        "extraction_rate_standard_error": extracted.standard_error,
        "figures": figures(table, task),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "seconds": seconds,
    }
    if sampler is not None:
        summary |= {**likelihood(table), **sampler}
    rates = step_rates(table)
    if rates is not None:
        summary["denoising"] = rates.as_json()
    return summary


def figures(table: pd.DataFrame, task: TaskSpec) -> dict[str, dict[str, float]]:
    """The task's figures beside accuracy: ratios of counts, each summed over the items."""
    found = {}
    for name, (above, below) in task.figures.items():
        counts = [table["counts"].map(lambda each, key=key: each[key]) for key in (above, below)]
        found[name] = ratio_of_sums(*(count.to_numpy(dtype=float) for count in counts))._asdict()
    return found


def likelihood(table: pd.DataFrame) -> dict[str, float]:
    """NELBO in nats per token and per sequence, and the bound on perplexity that it is.

    The standard error is of the random masks alone: the items are given.
    """
    tokens = float(table["tokens"].sum())
    per_token = float(table["nll"].sum() / tokens)
    error = float(np.sqrt(table["nll_variance"].sum()) / tokens)
    perplexity, perplexity_error = perplexity_bound(per_token, error)
    return {
        "nelbo_per_token": per_token,
        "nelbo_per_sequence": float(table["nll"].mean()),
        "nelbo_standard_error": error,
        "perplexity_bound": perplexity,
        "perplexity_bound_standard_error": perplexity_error,
    }
