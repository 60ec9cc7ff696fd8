"""What all pages have in common: templates that escape, and files that appear only whole."""

import os
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates(room: str = "raymdm.verdict") -> Environment:
    """Templates of a package and of this one, whose style sheet all pages share.

    Whatever they are filled with is escaped, and a name that nothing fills is an error.

    Args:
        room: the package that holds the page's own templates.
    """
    return Environment(
        loader=ChoiceLoader(
            [PackageLoader(name, ".") for name in dict.fromkeys((room, "raymdm.verdict"))]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_whole(path: Path, text: str, errors: str = "strict") -> Path:
    """Write a text all or nothing, in UTF-8: a reader never sees half a file. Returns the path.

    Args:
        path: its folder must be there.
        text: the content.
        errors: what becomes of characters that have no UTF-8, as for `str.encode`.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8", errors=errors)
    return partial.replace(path)
