"""Alerts: lines to read, and posts to a webhook."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from pydantic import SecretStr

from custseg_assets.stores.alerts import AlertLog


def test_an_alert_is_a_line_to_read_and_a_post_that_never_says_where_to(tmp_path: Path) -> None:
    posted: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/s3cret"
        said = AlertLog(tmp_path / "alerts.log", SecretStr(address)).add(datetime(2024, 5, 1, 6), "run 1\nfailed")
        server.shutdown()
    assert said == "2024-05-01T06:00:00Z run 1 failed (posted to the webhook)"
    assert json.loads(posted[0]) == {"text": "2024-05-01T06:00:00Z run 1 failed"}
    log = AlertLog(tmp_path / "alerts.log", SecretStr(address))
    missed = log.add(datetime(2024, 5, 2), "again")
    assert "the webhook could not be reached" in missed
    assert "s3cret" not in missed
    assert log.newest(1) == ["2024-05-02T00:00:00Z again"]
