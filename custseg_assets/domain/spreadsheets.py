"""What spreadsheets do to the texts of a csv file, and how texts are kept from it: one rule for exports and service."""

FORMULA = "^\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]"
"""How a text begins that a spreadsheet would compute instead of showing it; wide signs count in Japanese ones.

A regular expression for Python and for Polars. Where it fits, an apostrophe is put in front of the text.
"""
