"""A fake of a registry of container images on loopback: which digest a tag names now."""

from __future__ import annotations

import re

from tests.support.fakes.service import Answer, FakeService, Refused, Request


class FakeRegistry(FakeService):
    """The service; ``with FakeRegistry() as registry`` starts and stops it.

    Attributes:
        digests: ``path:tag`` → digest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.digests: dict[str, str] = {}

    def answer(self, request: Request) -> Answer:
        """See ``FakeService``."""
        found = re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", request.path)
        digest = self.digests.get(f"{found[1]}:{found[2]}") if found else None
        if digest is None or "vnd.oci.image.index" not in request.headers.get("accept", ""):
            raise Refused(404, "MANIFEST_UNKNOWN", "Failed to fetch.")
        return Answer(200, headers={"Docker-Content-Digest": digest})
