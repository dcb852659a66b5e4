"""``custseg vertex``: serve the home's release on an endpoint of Vertex AI.

How models are registered and deployed belongs in ``gcp.vertex_models``.
"""

from __future__ import annotations

from pathlib import Path

from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from custseg_assets.stores.releases import ReleaseManifest


def serve_on_vertex(settings: Settings, verb: str) -> str:
    """Do one step of bringing the home's release to the endpoint, and report how the traffic is split afterwards.

    Args:
        settings: of the home, with ``[gcp.serving]``.
        verb: ``canary``, ``full``, ``back`` or ``status``.

    Raises:
        BadInputError: Google Cloud is not configured, there is no release, or there is nothing to go back to.
        RunFailedError: the release is damaged, or a request to Vertex AI failed.
    """
    if settings.gcp.project is None:
        raise BadInputError("no [gcp] project", "Google Cloud in the configuration", "See docs/gcp.md.")
    from custseg_assets.gcp.vertex_models import VertexModels

    with VertexModels(settings.gcp) as models:
        if verb == "status":
            traffic = models.get_traffic()
        elif verb == "back":
            traffic = models.roll_back()
        else:
            version = models.register(*_current_release(Home(settings.home).releases))
            traffic = models.deploy_canary(version) if verb == "canary" else models.send_all_traffic(version)
    lines = [f"{share:>3} %  {version}" for version, share in sorted(traffic.items(), key=lambda item: -item[1])]
    return "\n".join(lines or ["nothing is deployed"])


def _current_release(root: Path) -> tuple[Path, ReleaseManifest]:
    release_id = releases.current(root)
    if release_id is None:
        raise BadInputError(f"{root} has no release", "a home that has been run", "Run custseg run first.")
    return root / release_id, releases.verify(root, release_id)
