"""What must be true of every table, checked with Great Expectations.

``suites`` says what is expected, as data; ``validation`` checks a frame; ``data_docs`` writes the pages. Asset checks
belong in ``defs``. Great Expectations takes seconds to import: only ``data_docs`` and functions in ``validation`` do.
"""
