"""Fixtures of the attacks on the service, as in ``tests/serving``."""

from tests.serving.conftest import served_home, start_app

__all__ = ["served_home", "start_app"]
