"""Answers as models write them, with what a person would call the answer, by hand."""

import pytest

from raymdm.tasks import get_task
from raymdm.tasks.answer_lists import list_answer, match_answers
from raymdm.tasks.countdown import extract as expression
from raymdm.tasks.extraction import boxes, last_boxed, stated
from raymdm.tasks.math_answers import math_answer, verify
from raymdm.tasks.numbers import final_number
from raymdm.tasks.openscience import choice

FINAL_NUMBERS = [
    # thousands, decimals, signs
    ("The answer is 1,234.", "1234"),
    ("1,234,567.50", "1234567.5"),
    ("12,34,567", "1234567"),  # India groups by two
    ("1.234.567", "1234567"),  # much of Europe groups by points
    ("1.234.567,89", "1234567.89"),
    ("the answer is 1\u202f234\u202f567", "1234567"),
    ("-3.0", "-3"),
    ("\N{MINUS SIGN}3", "-3"),
    ("x = - 5", "-5"),
    ("$-5", "-5"),
    ("-$5.50", "-5.5"),
    ("10 \N{EN DASH} 4 = 6", "6"),
    ("it fell to \\boxed{-\\frac{3}{4}}", "-0.75"),
    # fractions, mixed numbers, powers
    ("3/4", "0.75"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    (r"\boxed{\dfrac{3}{4}}", "0.75"),
    (r"\boxed{\tfrac12}", "0.5"),
    (r"\boxed{1\frac{1}{2}}", "1.5"),
    ("She needs 1 1/2 cups.", "1.5"),
    ("2½", "2.5"),
    ("¾ of it", "0.75"),
    ("1.5e3", "1500"),
    ("2e-3", "0.002"),
    (r"1.5 \times 10^3", "1500"),
    ("1.5 × 10^{-2}", "0.015"),
    (r"\boxed{10^6}", "1000000"),
    ("1e999999999", None),  # written out it would fill the memory
    # units and signs around the number
    ("12 km/h", "12"),
    ("25 m2", "25"),
    ("25 cm^2", "25"),
    ("She pays $5.50.", "5.5"),
    ("USD500", "500"),
    ("Rs.500", "500"),
    ("50%", "50"),
    (r"\boxed{50\%}", "50"),
    (r"\boxed{45^\circ}", "45"),
    (r"\boxed{18\text{ km}}", "18"),
    ("the 1st", "1"),
    ("H2O", None),
    ("x^2", None),
    ("**72**", "72"),
    # several numbers, text after the answer
    ("The answer is 5 because 3 + 2 is 5 and 7 is not.", "5"),
    ("The answer is 3 + 4 = 7.", "7"),
    ("Answer: 18 eggs (not 12)", "18"),
    ("First 3, then 4, in all 7 apples", "7"),
    ("#### 3 + 4 = 7", "7"),
    ("#### 1,234 dollars, or 12 notes", "1234"),
    ("#### x = 5", "5"),
    ("10-5", "5"),  # a difference or a range: the last number, never -5
    ("it takes 3-5 days", "5"),
    # what is no number
    ("on 2024-05-17", None),
    ("on 12/05/2023", None),
    ("version 1.2.3", None),
    ("", None),
    ("####", None),
    (r"5 and \boxed{}", None),
    (r"\boxed{\text{none}}", None),
    # boxes
    (r"\boxed{\boxed{5}}", "5"),
    (r"\fbox{5} is it, not 6", "5"),
    (r"\boxed 5", "5"),
    (r"so $\boxed 12$.", "12"),
    (r"\boxed{3} no, \boxed{4}", "4"),
    (r"\boxed{3} and, cut off, \boxed{4", "3"),
    (r"we get 8, \boxed{", "8"),
    (r"\boxed{x = 5}", "5"),
]


@pytest.mark.parametrize(("text", "number"), FINAL_NUMBERS)
def test_the_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


BOXES = [
    (r"\boxed{\frac{1}{2}} so", r"\frac{1}{2}"),
    (r"\boxed{\text{(C)}}", r"\text{(C)}"),
    (r"\boxed{x = \boxed{5}}", "5"),
    (r"\boxed {7}", "7"),
    (r"\fbox{\$5.50}", r"\$5.50"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed 5.", "5"),
    (r"\boxed{}", ""),
    (r"\boxed{1} \boxed{\frac{1}{2", "1"),
    (r"\boxedtext{5}", None),
    (r"\boxed{5", None),
    ("none", None),
]


@pytest.mark.parametrize(("text", "content"), BOXES)
def test_the_last_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_boxes_know_where_they_stand() -> None:
    text = r"a \boxed{1}, \fbox{\boxed{2}} b"
    assert [text[box.start : box.end] for box in boxes(text)] == [r"\boxed{1}", r"\fbox{\boxed{2}}"]


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("The answer is 5.", "5"),
        ("The final answer is: **5**", "5"),
        ("the answer is 4. No, the answer is 5, since 2 + 3 = 5.", "5"),
        ("Answer: 3.5 m. Done", "3.5 m"),
        ("the answers are 1 and 2", "1 and 2"),
        ("the answer is", None),
        ("she answered 5", None),
    ],
)
def test_the_clause_that_states_an_answer(text: str, clause: str | None) -> None:
    assert stated(text) == clause


MATH_ANSWERS = [
    (r"so $x = \boxed{\frac{1}{2}}$, as 3 > 2", r"\frac{1}{2}"),
    ("<answer> 5 </answer>", "5"),
    (r"The final answer is $\sqrt{2}$. I hope it is correct.", r"\sqrt{2}"),
    ("the answer is 3/4.", "3/4"),
    (r"\boxed{ }", None),
    (r"we have $x = 5$", None),  # asked for a box: working is no answer
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), MATH_ANSWERS)
def test_the_answer_of_a_mathematical_response(text: str, answer: str | None) -> None:
    assert math_answer(text) == answer


EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", r"\dfrac{1}{2}"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", r"50\%"),
    ("1234", "1,234"),
    (r"\$32{,}348", "32348"),
    ("-3", "\N{MINUS SIGN}3"),
    ("-3.0", "-3"),
    (r"3\frac{1}{2}", "3.5"),
    ("1500", r"1.5 \times 10^3"),
    ("5", "x = 5"),
    ("5", r"5\text{ cm}"),
    ("12", r"12\text{ km/h}"),
    ("90", r"90^\circ"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\left(3, \frac{\pi}{2}\right)", r"(3,\pi/2)"),
    (r"\{1, 2\}", r"\{2, 1\}"),
    ("1, -2", "-2, 1"),
    (r"1 \text{ and } 2", "2, 1"),
    (r"\pm 3", "3, -3"),
    (r"[1, 2)", r"\left[1,2\right)"),
    (r"(-1,2)\cup(3,4)", r"(3,4) \cup (-1,2)"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(C)}", "C"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    ("2i+1", "1+2i"),
    ("4", "$4$"),
]
UNEQUAL = [
    (r"\frac{3}{4}", "0.74"),
    (r"\frac{1}{3}", "0.33"),
    ("3", "4"),
    ("3", "3, 4"),
    ("3, 4", "3"),
    ("(1,2)", "(2,1)"),
    ("[1,2)", "(1,2)"),
    ("[1,2)", "[1,2]"),
    ("2x", "2y"),
    ("2", r"2\pi"),
    (r"\text{Evelyn}", r"\text{Bob}"),
    (r"\text{(C)}", r"\text{(B)}"),
    ("52_8", "52_7"),  # bases
    ("5", ""),
    ("5", r"\frac{5"),
    ("5", "}{"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_mathematics(gold: str, answer: str) -> None:
    assert verify(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal_mathematics(gold: str, answer: str) -> None:
    assert not verify(gold, answer)


def test_the_gold_answer_comes_first() -> None:
    """Of the two only the prediction may be an equation that works the answer out."""
    assert verify("5", "3 + 2 = 5")
    assert not verify("3 + 2 = 5", "5")


LISTS: list[tuple[str, list[str | int | float], tuple[int, int]]] = [
    # a response, the gold answers, (right, predicted)
    (r"\boxed{52.1}", [52.1], (1, 1)),
    (r"\boxed{52.1\%}", [52.1], (1, 1)),
    (r"\boxed{52.1%}", [0.521], (1, 1)),
    (r"\boxed{52.1 percent}", [52.1], (1, 1)),
    (r"\boxed{1,234}", [1234], (1, 1)),
    (r"\boxed{1,234 | 5,678}", [5678, 1234], (2, 2)),
    (r"\boxed{1,234, 5,678}", [1234.0, 5678.0], (2, 2)),
    (r"\boxed{1995, 1998}", [1995, 1998], (2, 2)),
    (r"\boxed{1995,1998}", [1995, 1998], (2, 2)),
    (r"\boxed{$5.50}", [5.5], (1, 1)),
    (r"\boxed{12 km/h}", [12], (1, 1)),
    (r"\boxed{0.33}", [0.333333], (1, 1)),
    (r"\boxed{0.3}", [0.333333], (0, 1)),
    (r"\boxed{0}", [0.0042], (0, 1)),  # within the tolerance, and yet no answer
    (r"\boxed{0.004}", [0], (0, 1)),
    (r"\boxed{-259.35}", [-259.3467], (1, 1)),
    (r"\boxed{259.35}", [-259.3467], (0, 1)),
    (r"\boxed{3}", [3, 3], (1, 1)),  # a gold answer is matched once
    (r"\boxed{3 | 3}", [3], (1, 2)),
    (r"\boxed{10.004 | 10.012}", [10.008, 10.0], (2, 2)),  # the one pairing that uses both
    (r"\boxed{\text{Women}}", ["women"], (1, 1)),
    (r"\boxed{men and women}", ["women", "men"], (2, 2)),
    (r"\boxed{men and women}", ["men and women"], (1, 1)),
    (r"\boxed{visible minority, women}", ["women", "visible minority"], (2, 2)),
    (r"\boxed{1995, 1998 and 2003, annually}", ["1995, 1998 and 2003, annually"], (1, 1)),
    (r"\boxed{18 to 24}", ["18 to 24"], (1, 1)),
    (r"\boxed{18}", ["18 to 24"], (0, 1)),
    (r"\boxed{3-5}", [5], (0, 1)),  # a range is not its end
    (r"\boxed{2013-14}", ["2013-14"], (1, 1)),
    (r"\boxed{q1}", [1], (0, 1)),
    (r"\boxed{2}", ["ligue 2"], (0, 1)),
    (r"\boxed{5.0}", ["5"], (1, 1)),
    (r"\boxed{ontario}, \boxed{quebec}", ["quebec", "ontario"], (2, 2)),
    (r"It is \boxed{1}. Rather, it is \boxed{2}.", [2], (1, 1)),
    ("The answer is women.", ["women"], (1, 1)),
    ("<answer>7; 8</answer>", [7, 8], (2, 2)),
    (r"\boxed{7", [7], (0, 0)),
    (r"\boxed{}", [7], (0, 0)),
    ("", [7], (0, 0)),
]


@pytest.mark.parametrize(("text", "gold", "result"), LISTS)
def test_lists_of_answers(
    text: str, gold: list[str | int | float], result: tuple[int, int]
) -> None:
    match = match_answers(list_answer(text) or "", gold, tolerance=0.01)
    assert (match.right, match.predicted) == result
    assert match.is_perfect == (match.right == match.predicted == len(gold))


EXPRESSIONS = [
    ("<answer>30 + 93 - 100</answer>", 1.0),
    ("<answer>30 + 93 - 100 = 23</answer>", 1.0),
    ("<answer>23 = 30 + 93 - 100</answer>", 1.0),
    ("<answer>30 + 93 - 100 = 123 - 100 = 23</answer>", 1.0),
    ("<answer>(93 - 100) + 30 = ?</answer>", 1.0),
    ("<answer>-(100 - 93) + 30</answer>", 1.0),
    ("<answer>30 \N{MINUS SIGN} (100 \N{MINUS SIGN} 93)</answer>", 1.0),
    (r"<answer>$30 - \left(100 - 93\right)$</answer>", 1.0),
    (r"So \boxed{30 + 93 - 100}.", 1.0),
    ("First 100 - 93 = 7.\nThe answer is 30 - (100 - 93) = 23.", 1.0),
    ("30 + 93 - 100", 1.0),
    ("<answer>30 + 93</answer> no, <answer>30 + 93 - 100</answer>", 1.0),
    ("<answer>30 + 93 - 100 = 24</answer>", 0.0),  # says something else than it is
    ("<answer>30 + 93 - 100 + 30 - 30</answer>", 0.0),  # a number twice
    ("<answer>30 * 93 - 100</answer>", 0.0),  # another value
    ("<answer>93 - 70</answer>", 0.0),  # not the numbers given
    ("<answer>23</answer>", 0.0),
    ("<answer>30 + 93 - 10 * 10</answer>", 0.0),
    ("<answer>30 ** 93 - 100</answer>", 0.0),
    ("<answer>30 // 93 - 100</answer>", 0.0),
    ("<answer>30 + 93 - 100 # yes</answer>", 0.0),
    ("<answer>30 + 93 - 100.0</answer>", 0.0),
    ("<answer>30 + (93 - 100</answer>", 0.0),
    ("<answer>30 / (93 - 93) - 100</answer>", 0.0),
    ("<answer></answer>", 0.0),
    ("<answer>30 + 93 - 100", 0.0),  # cut short
    ("<answer>__import__('os')</answer>", 0.0),
    ("<answer>" + "(" * 60 + "30 + 93 - 100" + ")" * 60 + "</answer>", 0.0),
    ("<answer>" + "-" * 100 + "30 + 93 - 100</answer>", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize(("text", "score"), EXPRESSIONS)
def test_countdown(text: str, score: float) -> None:
    reference = {"numbers": [30, 100, 93], "target": 23}
    assert get_task("countdown").score(text, reference) == score


def test_countdown_finds_fractions_exactly() -> None:
    reference = {"numbers": [8, 3, 8, 3], "target": 24}
    assert get_task("countdown").score("<answer>8 / (3 - 8 / 3)</answer>", reference) == 1.0


def test_no_expression_is_taken_from_prose() -> None:
    assert expression("I cannot reach 23 with these 3 numbers.") is None


CHOICES = [
    ("C", "C"),
    (r"\text{C}", "C"),
    ("(c)", "C"),
    ("C.", "C"),
    ("C) the mitochondrion", "C"),
    (r"\textbf{(C) water}", "C"),
    ("Option C: water", "C"),
    ("**C**", "C"),
    ("Carbon", None),
    ("A cat", None),
    ("5", None),
    ("x = 5", None),
    ("", None),
]


@pytest.mark.parametrize(("answer", "letter"), CHOICES)
def test_the_letter_of_a_choice(answer: str, letter: str | None) -> None:
    assert choice(answer) == letter


def test_there_are_enough_of_them() -> None:
    tables = (FINAL_NUMBERS, BOXES, MATH_ANSWERS, EQUAL, UNEQUAL, LISTS, EXPRESSIONS, CHOICES)
    assert sum(map(len, tables)) >= 200
