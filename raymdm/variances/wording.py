"""Ratios, shares and names in words, with as many digits as they deserve."""

from collections.abc import Sequence
from math import floor, isfinite, log10, nan

from raymdm.variances.figures import Figure, Parts
from raymdm.verdict.wording import NOTHING, interval, number


def ratio(value: float | None) -> str:
    """`0.52`, `12.3`, `0.041`; a dash where there is none."""
    return NOTHING if value is None else number(value, _places(value))


def ratio_interval(figure: Figure | None) -> str:
    """`0.52 [0.48, 0.57]`; a dash where there is none."""
    return NOTHING if figure is None else figure_text(figure, _places(figure.value))


def percent(value: float) -> str:
    """`12%`; below a tenth with one place; a dash where it is undefined."""
    if not isfinite(value):
        return NOTHING
    return f"{number(100 * value, 1 if abs(value) < 0.1 else 0)}%"


def percent_interval(figure: Figure) -> str:
    """`12% [9%, 15%]` of a share."""
    return f"{percent(figure.value)} [{percent(figure.low)}, {percent(figure.high)}]"


def share(noise: Parts, name: str) -> Figure:
    """A component over A + B + C.

    The interval takes the component at one end and all others at their opposite ends: a component
    and the total that it is most of rise and fall together.
    """
    part: Figure = getattr(noise, name)
    others = {"B1": ("A", "B2", "C"), "B2": ("A", "B1", "C")}.get(
        name, tuple(other for other in ("A", "B", "C") if other != name)
    )
    value = part.value / noise.total.value
    low = _fraction(part.low, sum(getattr(noise, other).high for other in others))
    high = _fraction(part.high, sum(getattr(noise, other).low for other in others))
    return Figure(value=value, low=min(low, value), high=max(high, value))


def overlap(one: Figure, other: Figure) -> bool:
    """Whether two intervals have a point in common."""
    return one.low <= other.high and other.low <= one.high


def general(figure: Figure) -> str:
    """`1.23e-05 [1.1e-05, 1.36e-05]`: any size, three digits."""
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def exponent(total: float) -> int:
    """The power of ten to show variances in: 0 for sizes that read well as they are."""
    if not isfinite(total) or total <= 0 or 0.1 <= total < 1000:
        return 0
    return floor(log10(total))


def scaled(figure: Figure, total: float) -> str:
    """A variance with its interval, in the unit and with the places that suit the total."""
    unit = 10.0 ** exponent(total)
    size = total / unit
    places = max(0, 2 - floor(log10(size))) if isfinite(size) and size > 0 else 3
    return figure_text(
        Figure(**{end: value / unit for end, value in figure.model_dump().items()}), places
    )


def figure_text(figure: Figure, places: int) -> str:
    """`value [low, high]` with fixed places."""
    return f"{number(figure.value, places)} {interval((figure.low, figure.high), places)}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _places(value: float) -> int:
    size = abs(value)
    if 0 < size < 0.1:
        return min(4, 1 - floor(log10(size)))
    return 2 if size < 10 else 1 if size < 100 else 0


def _fraction(part: float, rest: float) -> float:
    """Part of part + rest; undefined where noise leaves less than nothing of the two."""
    return part / (part + rest) if part + rest > 0 else nan
