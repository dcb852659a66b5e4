"""Fixtures of the attacks on the service."""

from tests.support.service_fixtures import served_home, start_app

__all__ = ["served_home", "start_app"]
