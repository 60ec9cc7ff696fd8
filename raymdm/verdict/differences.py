"""The settings in which the arms differ, from the configurations of their first runs."""

import json
from pathlib import Path
from typing import Any

from raymdm.verdict.results import Results
from raymdm.verdict.run_files import read_run_config
from raymdm.verdict.wording import NOTHING

_OF_THE_RUN = (
    "seed",
    "stream_seeds",
    "run_dir",
    "checkpoints.storage",
    "sweep",
    "compare",
    "wandb",
)
"""What differs between any two runs, or says how they were asked for, not what they do."""


def differing_settings(results: Results) -> dict[str, dict[str, Any]]:
    """Values by arm of every dotted key that is not the same in all arms, in the file's order.

    Of every arm the first run with a `config.yaml`. An arm without the key is left out of its
    mapping, one without a configuration out of all. Empty with fewer than two configurations.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in results.runs.itertuples():
        if run.run_dir and not found.get(run.arm):
            found[run.arm] = _flat(read_run_config(Path(run.run_dir)))
    found = {arm: values for arm, values in found.items() if values}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    # Where one arm has nothing and another has more below, what is below says it.
    keys = {key: None for key in keys if not any(each.startswith(f"{key}.") for each in keys)}
    by_key = {
        key: {arm: values[key] for arm, values in found.items() if key in values} for key in keys
    }
    return {
        key: values
        for key, values in by_key.items()
        if len(values) < len(found) or len(set(map(shown, values.values()))) > 1
    }


def shown(value: Any) -> str:
    """A value as it stands in a configuration, on one line."""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def settings_rows(
    settings: dict[str, dict[str, Any]], arms: list[str]
) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Key and, for every arm, its value and whether it is the first arm's, for a table."""
    rows = []
    for key, values in settings.items():
        texts = [shown(values[arm]) if arm in values else NOTHING for arm in arms]
        rows.append((key, [(text, text == texts[0]) for text in texts]))
    return rows


def _flat(content: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Leaves by dotted key; lists are leaves, and so are empty mappings."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{before}{name}"
        if key in _OF_THE_RUN:
            continue
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{key}.")
        else:
            flat[key] = value
    return flat
