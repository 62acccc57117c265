"""Text, numbers and reStructuredText captions as LaTeX source that compiles whatever they hold."""

import math
import re
from typing import SupportsFloat

from reproduction.errors import DataError

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': "''",
}
# From U+03B1 on; omicron has no command of its own.
_GREEK = re.findall(
    r"\w+",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
    "upsilon phi chi psi omega",
)
_UNICODE = {
    **{chr(0x3B1 + position): rf"\ensuremath{{\{name}}}" for position, name in enumerate(_GREEK) if name != "omicron"},
    **{
        letter: rf"\ensuremath{{\{name}}}"
        for letter, name in zip(
            "ΓΔΘΛΞΠΣΦΨΩ", ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"), strict=True
        )
    },
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≈": r"\ensuremath{\approx}",
    "≠": r"\ensuremath{\neq}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "±": r"\ensuremath{\pm}",
    "−": r"\ensuremath{-}",
    "→": r"\ensuremath{\rightarrow}",
    "∈": r"\ensuremath{\in}",
    "∞": r"\ensuremath{\infty}",
    "√": r"\ensuremath{\surd}",
    "∼": r"\ensuremath{\sim}",
    "‖": r"\ensuremath{\|}",
    "⟨": r"\ensuremath{\langle}",
    "⟩": r"\ensuremath{\rangle}",
    "°": r"\ensuremath{^\circ}",
    **{chr(0x2080 + digit): rf"\ensuremath{{_{digit}}}" for digit in range(10)},
    **{power: rf"\ensuremath{{^{digit}}}" for power, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹", range(10), strict=True)},
    "⁻": r"\ensuremath{^-}",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u00a0": "~",
    "\u202f": r"\,",
}
_INLINE = re.compile(
    r"(?P<escape>\\(?:.|\n))|``(?P<literal>.+?)``|:math:`(?P<math>.+?)`|\*\*(?P<strong>.+?)\*\*|\*(?P<emph>[^\s*](?:.*?[^\s*])?)\*"
    r"|:[\w-]+:`(?P<role>.+?)`",
    re.DOTALL,
)


def escape(text: str) -> str:
    """Plain text as LaTeX text.

    Letters of Latin-1 and Latin Extended-A stay as they are (utf8 input); `DataError` names any character that has no
    known LaTeX form.
    """
    return "".join(_escape_character(character, text) for character in text)


def _escape_character(character: str, text: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _UNICODE:
        return _UNICODE[character]
    if character in "\n\t" or " " <= character <= "~" or (character.isalpha() and character < "\u0180"):
        return character
    raise DataError(
        f"character U+{ord(character):04X} has no LaTeX form here; write it with :math: or in words: {text[:60]!r}"
    )


def rst_to_latex(source: str) -> str:
    r"""One reStructuredText caption as the argument of `\caption`: one paragraph.

    Understood: paragraphs, *emphasis*, **strong**, ``literal``, :math:`...`, backslash escapes and comments.
    Directives, targets and template expressions raise `DataError`, since they would stand in the paper as they are.
    """
    if "{{" in _without_math(source) or "{%" in source:
        raise DataError(f"a caption may hold no template expression: {source.strip()[:60]!r}")
    paragraphs = [" ".join(block.split("\n")) for block in re.split(r"\n[ \t]*\n", source.strip())]
    kept = []
    for paragraph in paragraphs:
        if re.match(r"\.\. [\w-]+::|\.\. _|__ ", paragraph):
            raise DataError(f"a caption is plain paragraphs; this is a directive: {paragraph[:60]!r}")
        if not paragraph.startswith(".."):
            kept.append(_inline(re.sub(r"\s+", " ", paragraph.strip())))
    return " ".join(kept)


def _without_math(source: str) -> str:
    return re.sub(r":math:`.+?`|``.+?``", "", source, flags=re.DOTALL)


def _inline(text: str) -> str:
    pieces, position = [], 0
    for match in _INLINE.finditer(text):
        pieces.append(escape(text[position : match.start()]))
        pieces.append(_markup(match))
        position = match.end()
    return "".join([*pieces, escape(text[position:])])


def _markup(match: re.Match[str]) -> str:
    kind, content = match.lastgroup, match.group(match.lastgroup or 0)
    if kind == "escape":
        return "" if content[1:].isspace() else escape(content[1:])
    if kind == "literal":
        return rf"\texttt{{{escape(content)}}}"
    if kind == "math":
        return f"${content}$"
    if kind == "role":
        raise DataError(f"a caption may use the role :math: only: {match.group(0)[:60]!r}")
    return rf"\textbf{{{_inline(content)}}}" if kind == "strong" else rf"\emph{{{_inline(content)}}}"


def _exponent(value: float, digits: int = 1) -> int:
    """Power of ten of a number once it is rounded to some significant digits; 0 for 0."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2]) if value else 0


def significant_digits(value: float, low: float, high: float) -> int:
    """Digits that show the first digit of the interval's width: 3 to 6; 3 where that is no number or rounding."""
    width = high - low
    if not (math.isfinite(value) and width > 1e-6 * abs(value) and value):
        return 3
    return min(6, max(3, _exponent(value, 6) - _exponent(width) + 1))


def _scaled(values: tuple[float, ...], digits: int) -> tuple[list[str], int]:
    """The values with one common power of ten taken out: that of the first, or of the largest where the first is small
    beside how far they lie apart.
    """
    first = values[0]
    leading = first if max(values) - min(values) <= 10.0 * abs(first) else max(values, key=abs)
    exponent = _exponent(leading, digits)
    power = 0 if -3 <= exponent < 5 else exponent
    decimals = max(0, digits - 1 - (exponent - power))
    # Adding zero removes the sign of a negative zero.
    return [f"{round(value / 10.0**power, decimals) + 0.0:.{decimals}f}" for value in values], power


def plain_number(value: SupportsFloat, digits: int = 3) -> str:
    """A number to `digits` significant digits as plain text: 0.0523, 2.11e-05; n/a if it is not finite."""
    if not math.isfinite(float(value)):
        return "n/a"
    (text,), power = _scaled((float(value),), digits)
    return f"{text}e{power:+03d}" if power else text


def latex_number(value: SupportsFloat, digits: int = 3) -> str:
    """A number to `digits` significant digits as LaTeX, in text or in mathematics; a dash if it is not finite."""
    if not math.isfinite(float(value)):
        return "--"
    (text,), power = _scaled((float(value),), digits)
    return _ensure(text + (rf"\times 10^{{{power}}}" if power else ""))


def latex_given(value: SupportsFloat) -> str:
    """A number as it was given, to at most five significant digits, without trailing zeros; a dash if not finite."""
    mantissa = f"{float(value):.5g}".partition("e")[0].lstrip("-")
    return latex_number(value, max(1, len(mantissa.replace(".", "").strip("0"))))


def latex_integer(value: int) -> str:
    r"""A whole number with thin spaces between groups of three from 10\,000 on."""
    text = f"{value:,}" if abs(value) >= 10_000 else str(value)
    return _ensure(text.replace(",", r"\,"))


def plain_interval(value: float, low: float, high: float) -> str:
    """`value [low, high]` as plain text; the value alone where there is no interval."""
    if not math.isfinite(value) or not (math.isfinite(low) and math.isfinite(high)):
        return plain_number(value)
    (middle, lower, upper), power = _scaled((value, low, high), significant_digits(value, low, high))
    suffix = f"e{power:+03d}" if power else ""
    return f"{middle}{suffix} [{lower}{suffix}, {upper}{suffix}]"


def latex_interval(value: float, low: float, high: float) -> str:
    r"""`value [low, high]` as LaTeX with one common power of ten; the value alone where there is no interval."""
    if not math.isfinite(value) or not (math.isfinite(low) and math.isfinite(high)):
        return latex_number(value)
    (middle, lower, upper), power = _scaled((value, low, high), significant_digits(value, low, high))
    suffix = rf"\times 10^{{{power}}}" if power else ""
    return rf"\ensuremath{{{middle}}} \ensuremath{{[{lower}, {upper}]{suffix}}}"


def _ensure(text: str) -> str:
    return rf"\ensuremath{{{text}}}"
