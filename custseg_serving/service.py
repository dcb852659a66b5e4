"""The service of one worker: look up and score customers from the served release, and record every answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from custseg_assets.domain.segments.explain import BY_WEEK, RULE_FEATURES, is_visible_to_kmeans
from custseg_assets.stores.releases import accept_manifest, sha256_of
from custseg_assets.stores.signatures import RequiredSignature
from custseg_serving.access import AccessControl, EndedSessions, RequestCounts
from custseg_serving.answers import Answers, LookupResult
from custseg_serving.errors import MAX_PROBLEMS_SHOWN, ApiError, to_json
from custseg_serving.follower import Follower, connect
from custseg_serving.lists import Lists
from custseg_serving.login_link import LoginLinks
from custseg_serving.metrics import AccessLog, Metrics
from custseg_serving.predictions import Prediction, PredictionLog
from custseg_serving.settings import ServingSettings
from custseg_serving.swap import ActiveRelease

Outcome = tuple[str, str | None, bytes]
_NO_ANSWER = b"null"


class RequestInfo(NamedTuple):
    """What the prediction log records of a request.

    Attributes:
        request_id: of the request.
        key_id: of the key; ``None`` where none is needed.
        started: when it arrived, by the performance counter.
    """

    request_id: str
    key_id: str | None
    started: float


@dataclass(frozen=True)
class SharedState:
    """What the workers of a server share; created before they are forked.

    Attributes:
        counts: of each key's requests.
        digest: computes a file's SHA-256.
        hashes_ahead: whether releases are hashed before ``CURRENT`` names them.
        login_links: that wait to be used; ``None`` where none are made.
        ended_sessions: that were logged out of.
    """

    counts: RequestCounts = field(default_factory=lambda: RequestCounts(1))
    digest: Callable[[Path], str] = sha256_of
    hashes_ahead: bool = False
    login_links: LoginLinks | None = None
    ended_sessions: EndedSessions = field(default_factory=EndedSessions)


class Service:
    """Release, access control, logs, metrics and threads of one worker.

    Args:
        settings: of the server.
        shared: with the other workers of the server.
        worker: number of this worker.
    """

    def __init__(self, settings: ServingSettings, shared: SharedState | None = None, worker: int = 0) -> None:
        shared = shared or SharedState()
        self.settings, self.login_links = settings, shared.login_links
        self.metrics = Metrics()
        self.access = AccessControl(settings, shared.counts, worker, ended_sessions=shared.ended_sessions)
        check = RequiredSignature(settings.public_key) if settings.public_key else accept_manifest
        self.active = ActiveRelease(
            settings.releases,
            settings.poll_seconds,
            self.metrics,
            shared.digest,
            hashes_ahead=shared.hashes_ahead,
            check=check,
        )
        self.predictions = PredictionLog(settings, self.metrics)
        self.access_log = AccessLog()
        self.follower = Follower(settings, self.metrics, partial(connect, check=check))

    def start(self) -> None:
        """Open the release and start the threads; call it after forking."""
        self.access_log.start()
        self.predictions.start()
        self.follower.start()
        self.active.start()

    def stop(self) -> None:
        """Stop the threads and write the logs' queues."""
        self.active.stop()
        self.predictions.stop()
        self.follower.stop()
        self.access_log.stop()

    def answers(self) -> Answers:
        """Answers of the served release; one request uses one of them throughout.

        Raises:
            ApiError: 503 before there is a release.
        """
        answers = self.active.answers
        if answers is None:
            raise not_ready()
        return answers

    def lookup(self, customer_id: str, request: RequestInfo) -> bytes:
        """Look up one customer; return JSON.

        Raises:
            ApiError: 404 for a customer who is unknown or too new, 503 before there is a release.
        """
        answers = self.answers()
        result = answers.lookup(customer_id)
        outcome = _outcome(customer_id, result)
        self._record("lookup", answers, request, [outcome])
        if result.answer is None:
            raise _not_found_error(result, answers)
        return answers.with_release_info(outcome[-1])

    def history(self, customer_id: str) -> dict[str, Any]:
        """One customer at the snapshots so far.

        Raises:
            ApiError: 404 for a customer who is unknown or too new, 503 before there is a release with lists.
        """
        answers = self.answers()
        snapshots = Lists(answers).history(customer_id)
        if snapshots is None:
            raise _not_found_error(answers.lookup(customer_id), answers)
        return {"customer_id": customer_id, "snapshots": snapshots, **answers.release_info}

    def lookup_many(self, customer_ids: Sequence[str], request: RequestInfo) -> bytes:
        """Look up many customers; return JSON. An id given twice is answered once.

        Raises:
            ApiError: 503 before there is a release.
        """
        answers = self.answers()
        results = {customer_id: answers.lookup(customer_id) for customer_id in dict.fromkeys(customer_ids)}
        outcomes = [_outcome(customer_id, result) for customer_id, result in results.items()]
        self._record("lookup", answers, request, outcomes)
        others = {
            "unknown": [customer_id for outcome, customer_id, _ in outcomes if outcome == "unknown"],
            "too_new": [
                {"customer_id": customer_id, "first_seen_at": result.first_seen_at}
                for customer_id, result in results.items()
                if result.first_seen_at is not None
            ],
        }
        customers = b",".join(rendered for outcome, _, rendered in outcomes if outcome == "found")
        return answers.with_release_info(b'{"customers":[' + customers + b"]," + to_json(others)[1:])

    def score(self, rows: Sequence[Mapping[str, Any]], request: RequestInfo) -> bytes:
        """Assign segments to feature rows, in their order; return a JSON list.

        Raises:
            ApiError: 422 where a row lacks a feature, 503 before there is a release.
        """
        return self._score(self.answers(), rows, request)

    def score_with_release_info(self, rows: Sequence[Mapping[str, Any]], request: RequestInfo) -> bytes:
        """Assign segments to feature rows; return a JSON object with the release's information.

        Raises:
            ApiError: 422 where a row lacks a feature, 503 before there is a release.
        """
        answers = self.answers()
        return answers.with_release_info(b'{"customers":' + self._score(answers, rows, request) + b"}")

    def _score(self, answers: Answers, rows: Sequence[Mapping[str, Any]], request: RequestInfo) -> bytes:
        _check_features(rows, answers)
        outcomes = [("found", one["customer_id"], to_json(one)) for one in answers.score(rows)]
        self._record("score", answers, request, outcomes)
        return b"[" + b",".join(rendered for *_, rendered in outcomes) + b"]"

    def _record(self, kind: str, answers: Answers, request: RequestInfo, outcomes: Iterable[Outcome]) -> None:
        at, seconds = time.time(), time.perf_counter() - request.started
        self.predictions.put(
            [
                Prediction(
                    at=at,
                    kind=kind,
                    request_id=request.request_id,
                    key_id=request.key_id,
                    seconds=seconds,
                    release_id=answers.release.release_id,
                    model_version=answers.release.model.model_version,
                    outcome=outcome,
                    customer_id=customer_id,
                    answer=answer,
                )
                for outcome, customer_id, answer in outcomes
            ]
        )


def not_ready(refused: Mapping[str, str] | None = None) -> ApiError:
    """Error before there is a release; what was refused, if anything, is why."""
    return ApiError(
        503,
        "not_ready",
        "There is no release to answer from yet. `custseg run` makes one, and it is served as soon as it is there.",
        {"refused": refused},
        {"Retry-After": "5"},
    )


def _outcome(customer_id: str, result: LookupResult) -> Outcome:
    if result.answer is not None:
        return "found", customer_id, to_json(result.answer)
    return "unknown" if result.first_seen_at is None else "too_new", customer_id, _NO_ANSWER


def _not_found_error(result: LookupResult, answers: Answers) -> ApiError:
    if result.first_seen_at is not None:
        return ApiError(
            404,
            "customer_too_new",
            "The customer came after this release's snapshot; POST /v1/score can segment them.",
            {**answers.release_info, "first_seen_at": result.first_seen_at},
        )
    return ApiError(
        404, "customer_unknown", "No customer with this id was ever seen up to the snapshot.", answers.release_info
    )


def _check_features(rows: Sequence[Mapping[str, Any]], answers: Answers) -> None:
    """Check that rows have all required features; without orders, features of the model may be null."""
    problems = [
        {"row": number, "feature": name, "problem": problem}
        for number, row in enumerate(rows)
        for name in answers.required_features
        if (problem := _problem(row, name, answers.n_weeks))
    ]
    if problems:
        first = problems[0]
        raise ApiError(
            422,
            "features_missing",
            f"Row {first['row']}: {first['feature']} {first['problem']}; "
            f"every row needs {', '.join(answers.required_features)}.",
            {"problems": problems[:MAX_PROBLEMS_SHOWN], "n_problems": len(problems)},
        )


def _problem(row: Mapping[str, Any], name: str, n_weeks: int) -> str | None:
    if name not in row:
        return "is missing"
    if row[name] is None and (name in RULE_FEATURES or _has_orders(row)):
        return "must not be null for a customer with orders"
    if name == BY_WEEK and row[name] is not None and len(row[name]) != n_weeks:
        return f"has {len(row[name])} numbers instead of {n_weeks}"
    return None


def _has_orders(row: Mapping[str, Any]) -> bool:
    return all(name in row for name in RULE_FEATURES) and is_visible_to_kmeans(row)
