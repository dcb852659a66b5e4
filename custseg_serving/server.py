"""The gunicorn server: what workers share is created before the fork, files and threads of a worker after it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from custseg_serving.access import EndedSessions, RequestCounts
from custseg_serving.digests import SharedDigests
from custseg_serving.login_link import LoginLinks
from custseg_serving.run_folder import MEMORY, RunFolder
from custseg_serving.settings import ServingSettings
from custseg_serving.worker import MAX_CONNECTIONS, GuardedWorker, allow_connections

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
        self._worker = self._slot = 0
        self._slots: dict[int, int] = {}
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        chosen: dict[str, Any] = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "threads": settings.threads,
            "worker_class": GuardedWorker,
            "worker_connections": MAX_CONNECTIONS,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": 5,
            "accesslog": None,
            "loglevel": "warning",
            "proc_name": "custseg-serving",
            "control_socket_disable": True,
            "post_fork": self._number_worker,
            "worker_exit": _stop_service,
            "pre_fork": self._choose_slot,
            "child_exit": self._free_slot,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Create the application of one worker."""
        from custseg_serving.app import create_app
        from custseg_serving.metrics import share_metrics
        from custseg_serving.service import SharedState

        share_metrics(self._slot)
        shared = SharedState(
            self._counts,
            SharedDigests(self._folder),
            hashes_ahead=True,
            login_links=LoginLinks(self._folder),
            ended_sessions=EndedSessions(self._folder),
        )
        return create_app(self.settings, shared, self._worker)

    def serve(self) -> None:
        """Serve until a signal; then answer every request that has begun."""
        allow_connections()
        folder = RunFolder(self.settings)
        self._folder = folder.path
        # gunicorn makes a file for each worker there, and ends where it cannot: memory is neither full nor cleaned.
        self.cfg.set("worker_tmp_dir", str(MEMORY if os.access(MEMORY, os.W_OK) else self._folder))
        if self._login is not None:
            LoginLinks(self._folder).add(*self._login)
        # prometheus_client reads this when it is imported, so it is set before.
        os.environ[METRICS_FOLDER] = str(self._folder)
        # Imported here and not in load, so that the workers share its memory and start faster.
        import custseg_serving.app  # noqa: F401

        master = os.getpid()
        try:
            self.run()
        finally:
            if os.getpid() == master:
                folder.remove()
                del os.environ[METRICS_FOLDER]

    def _choose_slot(self, _server: Any, worker: Any) -> None:
        """Choose the lowest number that no living worker has; in the master, before the fork."""
        taken = set(self._slots.values())
        self._slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        self._slots[worker.age] = self._slot

    def _free_slot(self, _server: Any, worker: Any) -> None:
        """Free the number of a worker that has ended; in the master."""
        from prometheus_client.multiprocess import mark_process_dead

        # Somebody may have removed it: the next worker needs it.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        slot = self._slots.pop(worker.age, None)
        if slot is not None:
            mark_process_dead(slot)  # type: ignore[no-untyped-call]

    def _number_worker(self, _server: Any, worker: Any) -> None:
        self._worker = worker.age


def _stop_service(_server: Any, worker: Any) -> None:
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["custseg"].stop()
