"""The body of every error answer: ``{"error": {"code", "message", "details"}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic_core

MAX_PROBLEMS_SHOWN = 20
"""Limit of problems listed in one error, so that no request gets a large answer."""


class ApiError(Exception):
    """An error that is answered to the client.

    Args:
        status: HTTP status.
        code: stable, for programs.
        message: one sentence for people: what was given, what was expected.
        details: more for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.code, self.message = status, code, message
        self.details, self.headers = dict(details or {}), dict(headers or {})
        super().__init__(f"{status} {code}: {message}")

    def body(self) -> bytes:
        """The error as JSON."""
        error = {"code": self.code, "message": self.message, "details": self.details}
        return to_json({"error": error})


def internal_error() -> ApiError:
    """Error for a fault of the service; it contains no details, which could help an attacker."""
    return ApiError(500, "internal_error", "Something went wrong here; it has been logged.")


def to_json(value: Any) -> bytes:
    """Render compact JSON, several times faster than the standard library; every lookup does it."""
    return pydantic_core.to_json(value, inf_nan_mode="null")
