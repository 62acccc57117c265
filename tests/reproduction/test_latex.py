"""Text, numbers and captions as LaTeX source."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduction.errors import DataError
from reproduction.latex import (
    escape,
    latex_given,
    latex_integer,
    latex_interval,
    latex_number,
    plain_interval,
    plain_number,
    rst_to_latex,
    significant_digits,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% of $5 & #1_a", r"50\% of \$5 \& \#1\_a"),
        (r"a\b {c} ~ ^", r"a\textbackslash{}b \{c\} \textasciitilde{} \textasciicircum{}"),
        ("x < y > z | w", r"x \ensuremath{<} y \ensuremath{>} z \ensuremath{|} w"),
        ("τ₁ ≥ λ", r"\ensuremath{\tau}\ensuremath{_1} \ensuremath{\geq} \ensuremath{\lambda}"),
        ("× 10⁻⁴", r"\ensuremath{\times} 10\ensuremath{^-}\ensuremath{^4}"),
        ("θ–ω", r"\ensuremath{\theta}--\ensuremath{\omega}"),
        ("Mölder, Šuch", "Mölder, Šuch"),
        ('"quoted" “both” ‘ways’', "''quoted'' ``both'' `ways'"),
    ],
)  # fmt: skip
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


@pytest.mark.parametrize("text", ["漢", "\x07", "😀", "ο"])
def test_escape_refuses_what_would_not_compile(text: str) -> None:
    with pytest.raises(DataError, match=f"U\\+{ord(text):04X}"):
        escape(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_escaped_ascii_has_no_live_special_character(text: str) -> None:
    rest = escape(text)
    named = [rf"\text{name}{{}}" for name in ("backslash", "asciitilde", "asciicircum")]
    for harmless in (*named, *(rf"\ensuremath{{{c}}}" for c in "<>|"), *(f"\\{c}" for c in "{}$&#%_")):
        rest = rest.replace(harmless, "")
    assert not set(rest) & set("\\{}$&#%_^~")


@pytest.mark.parametrize(
    ("value", "digits", "plain", "latex"),
    [
        (0.0523, 3, "0.0523", "0.0523"),
        (2.1125e-5, 5, "2.1125e-05", r"2.1125\times 10^{-5}"),
        (0.00099996, 3, "0.00100", "0.00100"),
        (0.00099, 2, "9.9e-04", r"9.9\times 10^{-4}"),
        (99999.6, 3, "1.00e+05", r"1.00\times 10^{5}"),
        (1234.5, 3, "1234", "1234"),
        (-0.5, 3, "-0.500", "-0.500"),
        (0.0, 3, "0.00", "0.00"),
        (1.0, 3, "1.00", "1.00"),
        (9.999, 3, "10.0", "10.0"),
    ],
)
def test_numbers(value: float, digits: int, plain: str, latex: str) -> None:
    assert plain_number(value, digits) == plain
    assert latex_number(value, digits) == rf"\ensuremath{{{latex}}}"


@given(st.floats(1e-12, 1e12), st.integers(1, 6))
def test_plain_number_keeps_its_digits(value: float, digits: int) -> None:
    # Half a unit in the last digit, or of the ones before the decimal point.
    assert float(plain_number(value, digits)) == pytest.approx(value, rel=0.5001 * 10 ** (1 - digits), abs=0.5)
    assert (
        float(plain_number(value, digits)) == pytest.approx(value, rel=0.5001 * 10 ** (1 - digits))
        or value >= 10**digits
    )


def test_what_is_no_number() -> None:
    assert [latex_number(NAN), latex_given(NAN), latex_interval(NAN, 0.0, 1.0), latex_number(math.inf)] == ["--"] * 4
    assert [plain_number(NAN), plain_interval(NAN, 0.0, 1.0)] == ["n/a", "n/a"]


@pytest.mark.parametrize(
    ("value", "low", "high", "plain", "latex"),
    [
        (0.05, NAN, NAN, "0.0500", r"\ensuremath{0.0500}"),
        (0.0522, 0.0519, 0.0524, "0.0522 [0.0519, 0.0524]", r"\ensuremath{0.0522} \ensuremath{[0.0519, 0.0524]}"),
        (382.1, 308.4, 454.0, "382 [308, 454]", r"\ensuremath{382} \ensuremath{[308, 454]}"),
        (2.1127e-5, 2.1081e-5, 2.1172e-5, "2.113e-05 [2.108e-05, 2.117e-05]",
         r"\ensuremath{2.113} \ensuremath{[2.108, 2.117]\times 10^{-5}}"),
        (1.0, 1.0, 1.0, "1.00 [1.00, 1.00]", r"\ensuremath{1.00} \ensuremath{[1.00, 1.00]}"),
        (0.96875, 0.96875, 0.96875 + 1e-16, "0.969 [0.969, 0.969]", r"\ensuremath{0.969} \ensuremath{[0.969, 0.969]}"),
        # A value that is small beside its interval does not set the scale.
        (-3.7e-17, -5e-4, 5e-4, "0.00e-04 [-5.00e-04, 5.00e-04]",
         r"\ensuremath{0.00} \ensuremath{[-5.00, 5.00]\times 10^{-4}}"),
        (1.67e-4, -3.8e-3, 4.6e-3, "0.00017 [-0.00380, 0.00460]",
         r"\ensuremath{0.00017} \ensuremath{[-0.00380, 0.00460]}"),
        (0.97001, 0.96999, 0.97003, "0.97001 [0.96999, 0.97003]",
         r"\ensuremath{0.97001} \ensuremath{[0.96999, 0.97003]}"),
    ],
)  # fmt: skip
def test_intervals(value: float, low: float, high: float, plain: str, latex: str) -> None:
    assert plain_interval(value, low, high) == plain
    assert latex_interval(value, low, high) == latex


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(0, 1e3))
def test_digits_of_an_interval_stay_readable(value: float, below: float, above: float) -> None:
    assert 3 <= significant_digits(value, value - below, value + above) <= 6


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, "0.1"),
        (100, "100"),
        (89723, "89723"),
        (60_000, "60000"),
        (0.0523, "0.0523"),
        (-0.05, "-0.05"),
        (0, "0"),
        (1e-4, r"1\times 10^{-4}"),
        (2.1125e-5, r"2.1125\times 10^{-5}"),
    ],
)
def test_given_numbers_keep_their_form(value: float, expected: str) -> None:
    assert latex_given(value) == rf"\ensuremath{{{expected}}}"


@pytest.mark.parametrize(
    ("value", "expected"), [(7, "7"), (1584, "1584"), (89610, r"89\,610"), (-100000, r"-100\,000")]
)
def test_integers(value: int, expected: str) -> None:
    assert latex_integer(value) == rf"\ensuremath{{{expected}}}"


@pytest.mark.parametrize(
    ("rst", "latex"),
    [
        ("One *word*, **two**\nlines of 5%.\n", r"One \emph{word}, \textbf{two} lines of 5\%."),
        ("First.\n\nSecond.\n", "First. Second."),
        (":math:`D_1(t_w) \\le 2/N` at ``a_b``", r"$D_1(t_w) \le 2/N$ at \texttt{a\_b}"),
        (r"2 \* 3 and a\ b", "2 * 3 and ab"),
        ("Line :math:`x\ny` breaks", "Line $x y$ breaks"),
        (".. a comment\n   on two lines\n\nShown.", "Shown."),
        ("2 * 3 * 4", "2 * 3 * 4"),
        (":math:`{{a}}`", "${{a}}$"),
        ("*the _ mean*", r"\emph{the \_ mean}"),
    ],
)
def test_captions(rst: str, latex: str) -> None:
    assert rst_to_latex(rst) == latex


@pytest.mark.parametrize(
    ("rst", "message"),
    [
        ("Of {{ snakemake.config }}", "template"),
        ("{% if x %}", "template"),
        (".. figure:: a.png", "directive"),
        (".. _target:", "directive"),
        (":ref:`fig`", "role"),
        ("漢", "U\\+6F22"),
    ],
)
def test_captions_refuse_what_latex_cannot_show(rst: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rst_to_latex(rst)
