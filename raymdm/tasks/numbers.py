"""The number a response ends with, read without the usual traps (`1,234` is 1234, never 234)."""

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from raymdm.tasks.extraction import last_boxed, stated

LARGEST_EXPONENT = 30
"""A number with a larger power is not read: written out it would fill the memory."""
# Read from left to right, the first alternative that fits. What names no number comes first, so
# that `m2`, `x^2`, a date or a version number does not leave digits behind. A minus belongs to the
# number only where nothing is subtracted: "10-5" ends with 5, "=-5" with -5.
_TOKEN = re.compile(
    r"""\\[A-Za-z]+                                   # a LaTeX command
    |[^\W\d_]\w*                                      # a word: H2O, cm2, Q1
    |(?<=[\w)}\]])[_^]\{?-?\w+\}?                     # a subscript or power of what is no number
    |\d{4}-\d\d-\d\d(?!\d)|\d+(?:/\d+){2,}            # dates
    |(?P<sign>(?<![\w.)\]])-)?\$?(?P<sign_after>(?<=\$)-)?(?:
        (?P<whole>\d+)\ +(?P<numerator>\d+)/(?P<denominator>\d+)(?![\d/]|\.\d)
        |(?P<dotted>\d{1,3}(?:\.\d{3}){2,}(?![\d.]*\d)(?:,\d+)?)
        |\d+(?:\.\d+){2,}                             # 1.2.3
        |(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?
            |\d{1,2}(?:,\d{2})+,\d{3}(?!\d)(?:\.\d+)?
            |\d+(?:\.\d+)?|(?<!\w)\.\d+)
        (?:[eE](?P<exponent>[-+]?\d+)(?!\w)|\^\{?(?P<power>-?\d+)\}?)?
        (?:/(?P<divisor>\d+(?!\d*(?:/|\.\d))))?
    )""",
    re.VERBOSE,
)
_ARGUMENT = r"(?:\{\s*(-?[\d.,]+)\s*\}|(\d))"
_FRACTION = re.compile(rf"(\d?)\\[dt]?frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
# What LaTeX writes around digits: thin spaces, escaped signs, a comma in braces.
_LATEX_NOISE = {"{,}": ",", "\\,": "", "\\!": "", "\\ ": "", "\\$": "$", "\\%": "%"}
_DASHES = str.maketrans(
    {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{FULLWIDTH HYPHEN-MINUS}": "-"}
)
_FIXED_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_TIMES_TEN = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|×|\*|x)\s*10\s*\^\s*\{?(-?\d+)\}?")
_LONE_MINUS = re.compile(r"=\s*-\s+(?=[\d$.\\])")
_CURRENCY = re.compile(r"\b(?:USD|US|EUR|GBP|CAD|AUD|INR|CHF|Rs\.?)\s*(?=[\d$])")


def final_number(text: str) -> str | None:
    r"""The final number of a response in one canonical spelling, or None.

    Looked for in this order: after the last `####` (the first one of that line, or of what follows
    its last `=`); inside the last `\boxed{…}`; in the clause after the last "answer is"; the last
    number of the text. A `####` or a box that holds no number means that there is no answer: a
    number from the working is not one.
    """
    _, marker, tail = text.rpartition("####")
    if marker:
        line = tail.strip().split("\n", 1)[0]
        found = numbers_in(line.rpartition("=")[2]) or numbers_in(line)
        return found[0] if found else None
    boxed = last_boxed(text)
    if boxed is not None:
        found = numbers_in(boxed)
    else:
        found = numbers_in(stated(text) or "") or numbers_in(text)
    return found[-1] if found else None


def numbers_in(text: str) -> list[str]:
    """Every number of a text, in order, in canonical spelling.

    Fractions, mixed numbers (`1 1/2`), powers (`10^3`) and scientific notation are worked out; a
    date, a version (`1.2.3`) or a digit inside a word is no number.
    """
    found: list[str] = []
    for match in _TOKEN.finditer(_plain(text)):
        negative = match["sign"] or match["sign_after"]
        found += [canonical(-value if negative else value) for value in _values(match)]
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


def _values(match: re.Match[str]) -> list[Decimal]:
    """The numbers of one token: none for what is no number, two for `5 7/2` (nothing mixed)."""
    if match["whole"]:
        whole, above, below = (
            Decimal(match[name]) for name in ("whole", "numerator", "denominator")
        )
        if not below:
            return [whole]
        return [whole + above / below] if above < below else [whole, above / below]
    if match["dotted"]:
        return [Decimal(match["dotted"].replace(".", "").replace(",", "."))]
    if not match["digits"]:
        return []
    value = Decimal(match["digits"].replace(",", ""))
    written = match["exponent"] or match["power"] or "0"
    exponent = int(written) if len(written) < 5 else LARGEST_EXPONENT + 1
    if abs(exponent) > LARGEST_EXPONENT or (match["power"] and not value):
        return []
    if match["exponent"]:
        value = value.scaleb(exponent)
    elif match["power"]:
        value = value**exponent
    divisor = Decimal(match["divisor"] or 1)
    return [value / divisor] if divisor else []


def _plain(text: str) -> str:
    """The same numbers with one spelling of signs, spaces, fractions and powers of ten."""
    text = text.translate(_DASHES)
    text = "".join(_written_out(c) if unicodedata.category(c) == "No" else c for c in text)
    text = _FIXED_SPACE.sub("", text)
    for noise, plain in _LATEX_NOISE.items():
        text = text.replace(noise, plain)
    text = _FRACTION.sub(_fraction, text)
    text = _TIMES_TEN.sub(r"e\1", text)
    return _CURRENCY.sub("", _LONE_MINUS.sub("=-", text))


def _written_out(character: str) -> str:
    """`½` as ` 1/2`; other characters, such as `²`, are kept."""
    plain = unicodedata.normalize("NFKC", character)
    return (
        " " + plain.replace("\N{FRACTION SLASH}", "/")
        if "\N{FRACTION SLASH}" in plain
        else character
    )


def _fraction(match: re.Match[str]) -> str:
    above, below = match[2] or match[3], match[4] or match[5]
    # A digit in front makes it a mixed number; a minus must stay right in front.
    return f"{match[1]}{' ' if match[1] else ''}{above}/{below} "
