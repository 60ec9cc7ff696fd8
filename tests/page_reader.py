"""What a browser would make of a page, as far as tests ask."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "input", "img", "link", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """The elements of a page, the text it shows, and its scripts."""

    def __init__(self, source: str | Path) -> None:
        super().__init__()
        text = source if isinstance(source, str) else source.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append((dict(attributes).get("type"), ""))
        self.shown += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data
        elif "style" not in self.open:
            self.shown += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self) -> dict:
        (text,) = (text for kind, text in self.scripts if kind == "application/json")
        return json.loads(text)


def check_self_contained(page: Page) -> None:
    """Nothing is fetched, nothing but the page's own script, if it has one, may run."""
    assert page.open == []
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "src" not in attributes
        assert not (attributes.get("href") or "").startswith(
            ("http:", "https:", "//", "javascript:")
        )
    assert page.all("link") == page.all("img") == page.all("iframe") == []
    scripts = [text for kind, text in page.scripts if kind is None]
    assert len(scripts) <= 1
    (policy,) = (
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    allowed = {f"'sha256-{_digest(script)}'" for script in scripts}
    assert set(re.findall(r"script-src ([^;]*)", policy)) == allowed


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
