"""The pass over all training rows that precedes a run, and what a run directory keeps of it.

Every fragment is scanned by a Ray task, or in this process where Ray is not running. The facts lie
in the run directory, so a resume does not read again what it need not train on.
"""

import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from rich.console import Console
from rich.progress import Progress

from raymdm.config.data import DataSection
from raymdm.data.files import DataFile, find_files
from raymdm.data.fragment import Fragment, cut
from raymdm.data.manifest import Manifest
from raymdm.data.rows import TrainingRows
from raymdm.data.scan import Scanned, bad_lines, scan
from raymdm.data.schema import split_file
from raymdm.errors import DataError, RaymdmError

INDEX = "data_index.json"
"""In the run directory: what was found of the training rows."""
QUARANTINE = "quarantine.jsonl"
"""In the run directory: the lines that `data.bad_rows: skip` left out."""
_LARGE = 2**26
"""Bytes from which on the pass is worth a progress bar, and starting Ray for it."""
_AHEAD = 4  # fragments scanned or waiting for their turn, for each CPU


def open_rows(
    section: DataSection, folder: Path, manifest: Manifest, run_folder: Path
) -> TrainingRows:
    """The training rows of a run, every one of them checked, now or when the run began.

    Args:
        section: where they are, and what becomes of bad ones.
        folder: the prepared folder.
        manifest: its manifest.
        run_folder: the run directory, whether it is there yet or not.

    Raises:
        DataError: a file is missing or broken, a row is bad (with file and line), there are no
            rows, or the files are not what they were when the run began.
    """
    files = _find(section, folder)
    settings = _settings(section, manifest)
    kept = _read_index(run_folder / INDEX)
    if kept is not None and kept[0] == settings and kept[1].files == files:
        return kept[1]
    rows = _scan_all(files, section, manifest.vocabulary_size)
    if kept is not None and kept[0] == settings:
        _check_same(kept[1], rows, run_folder)
    return rows


def are_many(section: DataSection) -> bool:
    """Whether the training rows should be checked by many tasks, not by this process."""
    try:
        return _size(_find(section, Path(section.folder))) >= _LARGE
    except DataError:
        return False  # whoever opens them says what is wrong


def keep_rows(
    rows: TrainingRows, section: DataSection, manifest: Manifest, run_folder: Path
) -> None:
    """Write down in the run directory what a resume needs, and the lines that were left out.

    How many they are is said on stderr when the run begins.
    """
    path = run_folder / INDEX
    content = {
        "settings": _settings(section, manifest),
        "files": [[asdict(file) for file in source] for source in rows.files],
        "sources": [[asdict(fragment) for fragment in source] for source in rows.sources],
        "left_out": [asdict(fragment) for fragment in rows.left_out],
    }
    begins = not path.exists()
    if begins and rows.left_out:
        _quarantine(rows.left_out, run_folder / QUARANTINE, manifest.vocabulary_size)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(path)


def _find(section: DataSection, folder: Path) -> tuple[tuple[DataFile, ...], ...]:
    patterns = [source.files for source in section.sources]
    return tuple(
        tuple(find_files(names)) for names in patterns or [[str(folder / split_file("train"))]]
    )


def _settings(section: DataSection, manifest: Manifest) -> dict[str, Any]:
    return {
        "fragment_bytes": section.fragment_bytes,
        "bad_rows": section.bad_rows,
        "vocabulary_size": manifest.vocabulary_size,
    }


def _read_index(path: Path) -> tuple[dict[str, Any], TrainingRows] | None:
    """Settings and rows of an earlier pass; None without one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    rows = TrainingRows(
        files=tuple(tuple(DataFile(**file) for file in source) for source in content["files"]),
        sources=tuple(tuple(map(_fragment, source)) for source in content["sources"]),
        left_out=tuple(map(_fragment, content["left_out"])),
    )
    return content["settings"], rows


def _fragment(content: dict[str, Any]) -> Fragment:
    lists = {"marks": tuple(content["marks"]), "bad": tuple(content["bad"])}
    return Fragment(**{**content, **lists})


def _check_same(was: TrainingRows, now: TrainingRows, run_folder: Path) -> None:
    """Other names and times may be a copy's; rows must be the same."""
    for before, after in zip_longest(was.fragments, now.fragments):
        if before is None or after is None or before.content != after.content:
            path = (after or before).path
            raise DataError(
                f"{path}: its rows are not what {run_folder} began with; restore the file or "
                "choose another run_dir"
            )


def _scan_all(
    files: tuple[tuple[DataFile, ...], ...], section: DataSection, vocabulary_size: int
) -> TrainingRows:
    fragments = [
        [fragment for file in source for fragment in cut(file, section.fragment_bytes)]
        for source in files
    ]
    flat = [fragment for source in fragments for fragment in source]
    scanned = _shown(_scanned(flat, vocabulary_size), len(flat), _size(files))
    sources, left_out = [], []
    for number, source in enumerate(fragments):
        numbered = list(_numbered([next(scanned) for _ in source], section.bad_rows == "error"))
        sources.append(tuple(fragment for fragment in numbered if fragment.rows))
        left_out += [fragment for fragment in numbered if fragment.bad]
        if not sources[-1]:
            raise DataError(
                f"{files[number][0].path}: the file has no rows; run `raymdm prepare` on data that "
                "has some"
            )
    # Exhausted, so that the bar goes away.
    next(scanned, None)
    return TrainingRows(files, tuple(sources), tuple(left_out))


def _numbered(scanned: Sequence[Scanned], refuse: bool) -> Iterator[Fragment]:
    """Fragments with the number of their first line, which only those before them tell."""
    path, lines = "", 0
    for found in scanned:
        if found.fragment.path != path:
            path, lines = found.fragment.path, 0
        fragment = replace(found.fragment, first_line=lines)
        if refuse and found.reason is not None:
            raise DataError(f"{fragment.place(fragment.bad[0])}: {found.reason}")
        lines += found.lines
        yield fragment


def _scanned(fragments: list[Fragment], vocabulary_size: int) -> Iterator[Scanned]:
    """Every fragment scanned, in order."""
    if len(fragments) < 2 or not _may_wait_for_tasks():
        yield from (scan(fragment, vocabulary_size) for fragment in fragments)
        return
    task = ray.remote(num_cpus=1)(scan)
    ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    try:
        for fragment in fragments:
            waiting.append(task.remote(fragment, vocabulary_size))
            if len(waiting) == ahead:
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())
    except RayTaskError as error:
        if isinstance(error.cause, RaymdmError):
            raise error.cause from error
        raise


def _may_wait_for_tasks() -> bool:
    """Whether this is a driver: an actor would keep its CPUs, and might wait for them for ever."""
    return ray.is_initialized() and ray.get_runtime_context().get_actor_id() is None


def _shown(scanned: Iterator[Scanned], count: int, size: int) -> Iterator[Scanned]:
    """The same with a progress bar in a terminal, if the pass is a long one."""
    console = Console(stderr=True)
    hidden = size < _LARGE or not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as progress:
        yield from progress.track(scanned, total=count, description="checking rows")


def _size(files: tuple[tuple[DataFile, ...], ...]) -> int:
    return sum(file.size for source in files for file in source)


def _quarantine(left_out: Sequence[Fragment], path: Path, vocabulary_size: int) -> None:
    count: dict[str, int] = {}
    with open(path, "w", encoding="utf-8") as file:
        for fragment in left_out:
            for number, reason, text in bad_lines(fragment, vocabulary_size):
                row = {"file": fragment.path, "line": number, "reason": reason, "text": text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count[fragment.path] = count.get(fragment.path, 0) + 1
    first = next(iter(count))
    others = f" and {len(count) - 1} other files" if len(count) > 1 else ""
    print(
        f"{sum(count.values())} bad rows are left out, {count[first]} of them in {first}{others}; "
        f"see {path}",
        file=sys.stderr,
    )
