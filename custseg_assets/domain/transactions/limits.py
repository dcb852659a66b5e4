"""Values that no business has: amounts beyond any, and barcodes that were scanned into another field.

Setting such values of a source aside belongs in ``stores.limits``; why a line is rejected, in ``cleaning``.
"""

from __future__ import annotations

MAX_AMOUNT = 1e12
"""A larger quantity, price or amount of a line, in any currency, is a parsing error."""

MAX_SUM = 1000 * MAX_AMOUNT
"""A larger sum of amounts is one too: a thousand of the largest lines. Cents are still exact in a float below it."""

BARCODE_LENGTHS = (8, 12, 13, 14)
"""Digits of a Global Trade Item Number: EAN-8, UPC-A, EAN-13 and GTIN-14."""

MIN_BARCODE_RATIO = 1000
"""How many times larger than the column's usual values a barcode must be: one number in ten has a right check digit."""

USUAL_QUANTILE = 0.999
"""Quantile of a column that its usual values go up to; larger ones are rare also in a shop that sells by the pallet."""

MAX_LINE_SHARE = 0.5
"""Share of all the money that one line may have."""

MIN_LINE_RATIO = 10
"""How many times larger than every other line one with too large a share is: a wholesale order has others beside it."""

MIN_LINES = 100
"""Lines that are needed before one can have too large a share of the money."""


def is_barcode(value: float) -> bool:
    """Whether a number is a barcode: whole, with as many digits as one, and the right check digit.

    The check digit is that of GS1, *General Specifications*, section 7.9: from the right, every second digit counts
    three times, and the sum ends in 0.

    >>> is_barcode(4006381333931.0), is_barcode(4006381333932.0), is_barcode(12.5)
    (True, False, False)
    """
    if not value.is_integer() or len(digits := str(abs(int(value)))) not in BARCODE_LENGTHS:
        return False
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits))) % 10 == 0
