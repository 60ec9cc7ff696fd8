"""What a sweep's search tried before the runs of the verdict, from its `search.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymdm.errors import DataError
from raymdm.verdict.candidates import Candidate, best
from raymdm.verdict.cells import Cell
from raymdm.verdict.run_files import read_mapping
from raymdm.verdict.wording import NOTHING

NAME = "search.json"
"""The file, in the folder of a sweep."""

SEARCH_HEADINGS = (
    ("settings chosen", ""),
    ("of", "candidates × seeds"),
    ("chosen", ""),
    ("held-out NELBO", "mean of its seeds"),
    ("the others", ""),
)
"""Title and subtitle of every column."""

SEARCH_CAPTION = (
    "Chosen for every arm by itself, by the mean over seeds of their own of the held-out NELBO of "
    "training; the verdict is on other seeds and other rows."
)


def read_search(folder: Path) -> list[dict[str, Any]]:
    """One mapping per arm: arm, seeds (how many), chosen (settings), score, others.

    `others` are pairs of settings and score, or how the candidate ended where it has none. Empty
    where nothing was searched.

    Raises:
        DataError: a file that `raymdm sweep` did not write.
    """
    file = folder / NAME
    if not file.is_file():
        return []
    content = read_mapping(file)
    try:
        seeds = len(content["question"]["seeds"])
        by_arm: dict[str, list[Candidate]] = {arm: [] for arm in content["question"]["arms"]}
        for each in map(Candidate.from_dict, content["candidates"]):
            by_arm[each.arm].append(each)
        return [_arm(arm, seeds, found) for arm, found in by_arm.items() if found]
    except (KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{file}: not as `raymdm sweep` writes it ({reason})") from error


def search_cells(row: Mapping[str, Any]) -> list[Cell]:
    """One arm's cells, in the order of `SEARCH_HEADINGS`."""
    others = [
        f"{_shown(settings)}: {score if isinstance(score, str) else f'{score:.4f}'}"
        for settings, score in row["others"]
    ]
    chosen = row["chosen"]
    return [
        Cell(row["arm"]),
        Cell(f"{len(others) + (chosen is not None)} × {row['seeds']}"),
        Cell(NOTHING if chosen is None else _shown(chosen)),
        Cell(NOTHING if chosen is None else f"{row['score']:.4f}"),
        Cell("; ".join(others)),
    ]


def edge_notes(search: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the chosen value is the least or the greatest of those tried: a wider search may do
    better.
    """
    arms: dict[tuple[str, str], list[str]] = {}
    for row in search:
        for key, value in (row["chosen"] or {}).items():
            tried = [value, *(settings[key] for settings, _ in row["others"])]
            numbers = all(isinstance(each, (int, float)) for each in tried)
            if numbers and len(set(tried)) > 2 and value in (min(tried), max(tried)):
                end = "least" if value == min(tried) else "greatest"
                arms.setdefault((key, end), []).append(row["arm"])
    return [
        f"{key}: {', '.join(names)} took the {end} value tried, so a wider search may suit "
        f"{'it' if len(names) == 1 else 'them'} better"
        for (key, end), names in arms.items()
    ]


def _arm(arm: str, seeds: int, candidates: list[Candidate]) -> dict[str, Any]:
    chosen = best(candidates)
    return {
        "arm": arm,
        "seeds": seeds,
        "chosen": None if chosen is None else chosen.settings,
        "score": None if chosen is None else chosen.score,
        "others": [
            (each.settings, each.score if each.state == "complete" else each.state)
            for each in candidates
            if each is not chosen
        ],
    }


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.rpartition('.')[2]} {value:g}"
        if isinstance(value, float)
        else f"{key.rpartition('.')[2]} {value}"
        for key, value in settings.items()
    )
