"""A bare Flask route to compare the service with: it returns the same bytes and does nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask, Response

BODY = Path(os.environ["CUSTSEG_BENCH_BODY"]).read_bytes()

app = Flask(__name__)


@app.get("/v1/customers/<customer_id>/segment")
def lookup(customer_id: str) -> Response:  # noqa: ARG001 - Flask names the parameter
    """Return the same answer for every customer."""
    return Response(BODY, mimetype="application/json")
