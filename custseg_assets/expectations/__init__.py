"""What must be true of every table, checked with Great Expectations.

``suites`` says what is expected, as data; ``engine`` checks it; ``data_docs`` writes the pages. Great Expectations
takes seconds to import, so only ``data_docs`` and functions of ``engine`` do. Nothing here knows Dagster.
"""
