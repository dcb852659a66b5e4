"""Texts of others in Markdown: names of files and columns, values, and what people write, shown as they are."""

import re

_MARKS = re.compile(r"[\\`*\[\]<>|~&]|^[#+-]|(?<![^\W_])_|_(?![^\W_])")
"""What would be more than a character; ``_`` within a word is none, and names of files are full of it."""


def as_text(text: object) -> str:
    r"""A text such that Markdown shows it as it is, on one line, also in the cell of a table.

    >>> print(as_text("[x](javascript:1)<img src=x>|sales_2024_.csv"))
    \[x\](javascript:1)\<img src=x\>\|sales_2024\_.csv
    """
    return _MARKS.sub(r"\\\g<0>", " ".join(str(text).split()))
