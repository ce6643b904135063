"""Numbers as label files write them: 3, 3.0, 3.000e+00, and 3,0 where the decimal mark is a comma."""

import re
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]\d{1,3})?", re.IGNORECASE)
_MINUS = "\N{MINUS SIGN}"  # as word processors write it
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")


def number(text: str) -> Decimal | None:
    """The number that a label is, in digits of any script; None for text (1e5 without a sign: a name)."""
    text = text.replace(_MINUS, "-")
    return Decimal(text.replace(",", ".")) if _NUMBER.fullmatch(text) else None


def is_whole(value: Decimal) -> bool:
    """Whether a number has no fraction, however many digits it has."""
    return value.as_integer_ratio()[1] == 1


def whole_name(text: str) -> str:
    """What a whole number is called as a class: 3 for 3.0 and 3.000e+00, but 03 for 03."""
    return str(int(number(text) or 0)) if "e" in text.lower() else re.sub(r"[.,]0*$", "", text)


def can_be_thousands(text: str) -> bool:
    """Whether the comma of a number can be a decimal mark or part of a thousand."""
    return _THOUSANDS.fullmatch(text) is not None
