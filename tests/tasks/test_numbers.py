import pytest

from raymdm.tasks.numbers import canonical, final_number, last_boxed, numbers_in

CASES = [
    ("#### 72", "72"),
    ("48/2 = 24\n48+24 = 72\n#### 72", "72"),
    ("#### 1,234", "1234"),
    ("#### 1,234,567", "1234567"),
    ("#### $1,234.00 dollars", "1234"),
    ("#### $-5", "-5"),
    ("#### -$5", "-5"),
    ("#### 72.", "72"),
    ("#### 72.0", "72"),
    ("#### 12.50", "12.5"),
    ("#### .5", "0.5"),
    ("#### 3/4.", "0.75"),
    ("#### -0", "0"),
    ("####18", "18"),
    ("#### 5\n#### 6", "6"),
    ("#### 5\nand then 7 more", "5"),
    ("#### 5 apples of 9", "5"),
    ("we get 8\n#### ", None),
    ("we get 8\n#### eight", None),
    ("#### \N{MINUS SIGN}3", "-3"),
    (r"so \boxed{42}", "42"),
    (r"\boxed{41} or rather \boxed{42}", "42"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    (r"\boxed{1{,}234}", "1234"),
    (r"\boxed{\$18\text{ dollars}}", "18"),
    (r"\boxed{\text{none}} of 7", None),
    (r"\boxed{5} and, cut off, \boxed{7", "5"),
    (r"\boxed{3}" + "\n#### 4", "4"),
    ("The answer is 1,234.", "1234"),
    ("She pays $12.50.", "12.5"),
    ("10-5", "5"),
    ("10 - 5", "5"),
    ("x=-5", "-5"),
    ("(-5)", "-5"),
    ("18%", "18"),
    ("one of 3, 4", "4"),
    ("7/0", None),
    ("007", "7"),
    ("no number at all", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_final_number(text: str, expected: str | None) -> None:
    assert final_number(text) == expected


def test_thousands_are_one_number() -> None:
    assert numbers_in("1,234 and 5") == ["1234", "5"]


def test_nested_braces() -> None:
    assert last_boxed(r"\boxed{\frac{1}{2}} so") == r"\frac{1}{2}"
    assert last_boxed("none") is None


def test_canonical() -> None:
    assert canonical("1,000") == canonical("1000.00") == "1000"
    assert canonical("-0.0") == "0"
    with pytest.raises(ValueError, match="not a number"):
        canonical("ten")
