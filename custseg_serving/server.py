"""The gunicorn server: what workers share is created before the fork, files and threads of a worker after it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from custseg_serving.access import EndedSessions, RequestCounts
from custseg_serving.digests import SharedDigests
from custseg_serving.login_link import LoginLinks
from custseg_serving.settings import ServingSettings

GRACEFUL_SECONDS = 30
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn server with the application in each worker.

    Args:
        settings: of the server.
        login: token of a link that logs in once, and id of the key that it logs in with.
    """

    def __init__(self, settings: ServingSettings, login: tuple[str, str] | None = None) -> None:
        self.settings, self._login = settings, login
        self._counts = RequestCounts(max(8, 4 * settings.workers))
        self._worker = 0
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
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
        """Create the application of one worker."""
        from custseg_serving.app import create_app
        from custseg_serving.service import SharedState

        shared = SharedState(
            self._counts,
            SharedDigests(self._folder),
            hashes_ahead=True,
            login_links=LoginLinks(self._folder),
            ended_sessions=EndedSessions(self._folder),
        )
        return create_app(self.settings, shared, self._worker)

    def serve(self) -> None:
        """Serve until a signal; then answer every request that has begun.

        Raises:
            CustsegError: the release of a prediction container cannot be downloaded or is damaged.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="custseg-serving-"))
        if self._login is not None:
            LoginLinks(self._folder).add(*self._login)
        # prometheus_client reads this when it is imported, so it is set before.
        os.environ[METRICS_FOLDER] = str(self._folder)
        # Imported here and not in load, so that the workers share its memory and start faster.
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
                del os.environ[METRICS_FOLDER]

    def _number_worker(self, _server: Any, worker: Any) -> None:
        self._worker = worker.age


def _stop_service(_server: Any, worker: Any) -> None:
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["custseg"].stop()


def _forget_metrics(_server: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
