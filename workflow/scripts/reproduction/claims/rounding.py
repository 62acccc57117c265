"""The interval that printed digits allow, and the number of parameters that the paper's tau and tau_1 imply."""

from decimal import Decimal


def rounding_interval(printed: str) -> tuple[Decimal, Decimal]:
    """The numbers that round to printed digits: half a unit of the last digit either way, exactly.

    Digits that are given as text keep their zeros at the end, which a number would lose.
    """
    number = Decimal(printed)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{printed!r} is no finite number")
    half = Decimal(5).scaleb(exponent - 1)
    return number - half, number + half


def implied_parameters(overlap: str, displacement: str) -> tuple[float, float]:
    """Smallest and largest 2 (1 - tau) / tau_1 over all tau and tau_1 that round to the printed digits.

    tau_1 = 2 (1 - tau) / N for means over the same pairs, since |v - w|^2 = 2 (1 - |cos|) for the closer sign. Both
    digits must be known to their last one, and the implied number grows as either falls.
    """
    (low, high), (least, most) = rounding_interval(overlap), rounding_interval(displacement)
    if not (low >= 0 and high <= 1 and least > 0):
        raise ValueError(f"an overlap of {overlap} and a displacement of {displacement} imply no number")
    return float(2 * (1 - high) / most), float(2 * (1 - low) / least)
