"""Which numbers are barcodes."""

from __future__ import annotations

import pytest

from custseg_assets.domain.transactions.limits import is_barcode


@pytest.mark.parametrize("value", [96385074.0, 614141000036.0, 4006381333931.0, -4006381333931.0, 10614141000415.0])
def test_a_whole_number_with_the_right_check_digit_is_one(value: float) -> None:
    # 96385074 from the right: 4 + 3·7 + 0 + 3·5 + 8 + 3·3 + 6 + 3·9 = 90, which ends in 0.
    assert is_barcode(value)


@pytest.mark.parametrize("value", [96385075.0, 4006381333931.5, 36000291452.0, 963850740.0, 12.0, 0.0])
def test_a_wrong_digit_another_length_or_a_fraction_is_none(value: float) -> None:
    assert not is_barcode(value)
