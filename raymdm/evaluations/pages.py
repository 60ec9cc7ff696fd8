"""What both kinds of page share: templates, a policy that shuts out the network, whole files."""

import base64
import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from raymdm.errors import DataError


def render(template: str, script: str, **content: Any) -> str:
    """A page as text. Everything in `content` is escaped, JSON by the filter `tojson` too.

    Args:
        template: file name of the template, in this package.
        script: file name of its script. The page's security policy names the hash of this one
            script: the browser runs no other, and loads nothing.
        content: what the template reads.
    """
    code = _environment().get_template(script).render()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(**content, script_file=script, script_hash=f"sha256-{digest}")
    )


def write_page(path: Path, text: str) -> Path:
    """Write a page all or nothing, and return its path.

    Raises:
        DataError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{os.getpid()}"
        # A lone surrogate, which JSON rows may hold, has no UTF-8: it becomes a question mark.
        partial.write_bytes(text.encode("utf-8", errors="replace"))
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write the page {path}: {error.strerror}; choose another folder"
        ) from error
    return path


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        # The style sheet is that of the reports of runs.
        loader=ChoiceLoader(
            [PackageLoader("raymdm.evaluations", "."), PackageLoader("raymdm.verdict", ".")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment
