"""What both kinds of page share: templates, a policy that shuts out the network, whole files."""

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from raymdm.errors import DataError
from raymdm.verdict.pages import templates, write_whole


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
        # A lone surrogate, which JSON rows may hold, has no UTF-8: it becomes a question mark.
        return write_whole(path, text, errors="replace")
    except OSError as error:
        raise DataError(
            f"cannot write the page {path}: {error.strerror}; choose another folder"
        ) from error


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = templates("raymdm.evaluations")
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment
