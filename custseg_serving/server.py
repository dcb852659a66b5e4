"""gunicorn around the application: what the workers share is made before the fork, what they open is opened after."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from custseg_serving.access import RequestCounts
from custseg_serving.digests import SharedDigests
from custseg_serving.settings import ServingSettings

GRACEFUL_SECONDS = 30
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Server(BaseApplication):  # type: ignore[misc]
    """A gunicorn application with the service in each worker.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self._counts = RequestCounts(max(8, 4 * settings.workers))
        self._worker = 0
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's own settings."""
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        chosen: dict[str, Any] = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "threads": settings.threads,
            "worker_class": "gthread",
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": 5,
            "accesslog": None,
            "loglevel": "warning",
            "proc_name": "custseg-serving",
            "control_socket_disable": True,
            "post_fork": self._number_worker,
            "worker_exit": _stop_service,
            "child_exit": _forget_metrics,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application of one worker."""
        from custseg_serving.app import create_app
        from custseg_serving.service import Shared

        return create_app(
            self.settings, Shared(self._counts, SharedDigests(self._folder), hashes_ahead=True), self._worker
        )

    def serve(self) -> None:
        """Serve until told to stop; then every request that has begun is answered.

        Raises:
            CustsegError: the release that the container is to serve cannot be had.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="custseg-serving-"))
        # Before prometheus_client is imported anywhere, for that is when it looks.
        os.environ[METRICS_FOLDER] = str(self._folder)
        # Imported here and not in load, so that the workers share its memory and start at once.
        import custseg_serving.app  # noqa: F401
        from custseg_serving.follower import connect

        master = os.getpid()
        try:
            if self.settings.artifact:
                connect(self.settings.artifact).fetch_artifact(self.settings.releases)
            self.run()
        finally:
            if os.getpid() == master:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _number_worker(self, _server: Any, worker: Any) -> None:
        self._worker = worker.age


def _stop_service(_server: Any, worker: Any) -> None:
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["custseg"].stop()


def _forget_metrics(_server: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
