"""YAML files deep-merged left to right, then `a.b=c` overrides, into one checked `Config`."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from raymdm.config.schema import Config
from raymdm.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel the shipped files lie inside the package, in a checkout beside it.
SHIPPED = next(
    (folder for folder in (_PACKAGE / "_configs", _PACKAGE.parent / "configs") if folder.is_dir()),
    _PACKAGE / "_configs",
)


def config_files() -> list[Path]:
    """Every configuration file that is shipped with the package."""
    return sorted(SHIPPED.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """Path of a configuration file: as given, else among the shipped ones; `.yaml` may be left out.

    Raises:
        ConfigurationError: no such file; names the nearest shipped one.
    """
    for folder in (Path(), SHIPPED):
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.is_file():
                return candidate
    known = [path.relative_to(SHIPPED).with_suffix("").as_posix() for path in config_files()]
    raise ConfigurationError(
        f"config file {name!r} not found here or in {SHIPPED}{_nearest(name, known)}"
    )


def read_file(name: str) -> dict[str, Any]:
    """One YAML file as a plain mapping. Raises ConfigurationError with file and line.

    Interpolations stay as text: a resolved `${oc.env:…}` would put a secret into `config.yaml`.
    """
    path = find_config(name)
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigurationError(f"{path}{line}: cannot be read as YAML ({reason})") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path}: expected keys and values, found a {type(content).__name__}"
        )
    _refuse_unknown(content, Config, (), str(path))
    return {str(key): value for key, value in content.items()}


def read_config(files: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Merge files left to right, then `a.b=c` overrides, without filling in defaults."""
    merged: dict[str, Any] = {}
    for name in files:
        merged = merge_overlay(merged, read_file(name))
    for text in overrides:
        key, separator, _ = text.partition("=")
        if not separator or not key:
            raise ConfigurationError(f"--set {text!r}: expected key=value, e.g. training.steps=100")
        try:
            overlay = OmegaConf.to_container(OmegaConf.from_dotlist([text]), resolve=False)
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise ConfigurationError(f"--set {text!r}: the value is not valid YAML") from error
        assert isinstance(overlay, dict)
        _refuse_unknown(overlay, Config, (), f"--set {text}")
        merged = merge_overlay(merged, {str(k): v for k, v in overlay.items()})
    return merged


def load_config(files: Sequence[str] = (), overrides: Sequence[str] = ()) -> Config:
    """The checked configuration from files and overrides.

    Raises:
        ConfigurationError: a missing or broken file, an unknown key (with the nearest known one),
            a wrong type, or values that contradict each other.
    """
    return validate(read_config(files, overrides))


def validate(content: Mapping[str, Any], where: str = "configuration") -> Config:
    """A mapping as a checked `Config`; errors name the key."""
    _refuse_unknown(content, Config, (), where)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            reason = item["msg"].removeprefix("Value error, ")
            given = "" if item["type"] == "value_error" else f" (given {item['input']!r})"
            problems.append(f"{key}: {reason}{given}" if key else f"{reason}{given}")
        raise ConfigurationError(f"{where}: " + "; ".join(problems)) from error


def merge_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings merge key by key, everything else (lists too) is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge_overlay(below, value)
        else:
            merged[key] = value
    return merged


def dump_yaml(config: BaseModel) -> str:
    """The complete configuration as YAML."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def fingerprint(content: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that change with any value in `content`."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _refuse_unknown(
    content: Mapping[Any, Any], schema: type[BaseModel], path: tuple[str, ...], where: str
) -> None:
    """Walk the keys beside the schema; free-form mappings (options, arms) are checked later."""
    for key, value in content.items():
        field = schema.model_fields.get(str(key))
        if field is None:
            dotted = ".".join((*path, str(key)))
            raise ConfigurationError(
                f"{where}: unknown key {dotted!r}{_nearest(dotted, known_keys())}"
            )
        kind = _section(field.annotation)
        if kind is not None and isinstance(value, Mapping):
            _refuse_unknown(value, kind, (*path, str(key)), where)


def known_keys(schema: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the configuration, sections and leaves."""
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        kind = _section(field.annotation)
        if kind is not None:
            keys += known_keys(kind, f"{prefix}{name}.")
    return keys


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, if it holds one or null."""
    union = get_origin(annotation) in (Union, UnionType)
    kinds = (
        [kind for kind in get_args(annotation) if kind is not NoneType] if union else [annotation]
    )
    kind = kinds[0]
    whole = len(kinds) == 1 and isinstance(kind, type)
    return kind if whole and issubclass(kind, BaseModel) else None


def _nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`: a known key of the same last part first, else the most similar."""
    candidates = list(known)
    last = name.rpartition(".")[2]
    same = [key for key in candidates if key.rpartition(".")[2] == last]
    by_leaf = {key.rpartition(".")[2]: key for key in reversed(candidates)}
    leaf = difflib.get_close_matches(last, list(by_leaf), n=1, cutoff=0.75)
    close = (
        difflib.get_close_matches(name, same, n=1, cutoff=0.0)
        or difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
        or [by_leaf[part] for part in leaf]
    )
    return f"; did you mean {close[0]!r}?" if close else "; see `--dump-config` for the known keys"
