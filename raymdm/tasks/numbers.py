"""The number a response ends with, read without the usual traps (`1,234` is 1234, never 234)."""

import re
from decimal import Decimal, InvalidOperation

# A minus belongs to the number only where nothing is subtracted: "10-5" ends with 5, "=-5" with -5.
_NUMBER = re.compile(
    r"""(?P<sign>(?<![\w.)\]])-)?\$?(?P<sign_after>(?<=\$)-)?
    (?P<digits>(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
    (?:/(?P<divisor>\d+(?!\d*(?:/|\.\d))))?""",
    re.VERBOSE,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?[\d.]+)\}\s*\{([\d.]+)\}")
# What LaTeX writes around digits: thin spaces, escaped signs, a comma in braces.
_LATEX_NOISE = {"{,}": ",", "\\,": "", "\\!": "", "\\ ": "", "\\$": "$", "\\%": "%"}


def final_number(text: str) -> str | None:
    """The final number of a response in one canonical spelling, or None.

    Looked for in this order: after the last `####`; inside the last `\\boxed{…}`; the last number
    of the text. A `####` or a `\\boxed{}` that holds no number means that there is no answer: a
    number from the working is not one.
    """
    text = text.replace("\N{MINUS SIGN}", "-")
    _, marker, tail = text.rpartition("####")
    if marker:
        found = numbers_in(tail.strip().split("\n", 1)[0])
        return found[0] if found else None
    boxed = last_boxed(text)
    if boxed is not None:
        found = numbers_in(boxed)
        return found[-1] if found else None
    found = numbers_in(text)
    return found[-1] if found else None


def last_boxed(text: str) -> str | None:
    r"""Content of the last closed `\boxed{…}`, nested braces included, or None."""
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) >= 0:
        depth = 0
        opening = start + len("\\boxed")
        for position in range(opening, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[opening + 1 : position]
        end = start  # never closed: the response was cut inside it
    return None


def numbers_in(text: str) -> list[str]:
    """Every number of a text, in order, in canonical spelling."""
    for noise, plain in _LATEX_NOISE.items():
        text = text.replace(noise, plain)
    text = _FRACTION.sub(r" \1/\2 ", text)
    found = []
    for match in _NUMBER.finditer(text):
        value = Decimal(match["digits"].replace(",", ""))
        if match["divisor"]:
            divisor = Decimal(match["divisor"])
            if not divisor:
                continue
            value /= divisor
        found.append(canonical(-value if match["sign"] or match["sign_after"] else value))
    return found


def canonical(number: str | Decimal) -> str:
    """One spelling of a number: `1,234.50` and `1234.5` agree, as do `-0`, `0.0` and `0`.

    Raises:
        ValueError: the text is not a number.
    """
    try:
        value = Decimal(number.replace(",", "") if isinstance(number, str) else number)
    except InvalidOperation as error:
        raise ValueError(f"{number!r} is not a number") from error
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
