"""Google's real client libraries against fakes of the services; without the libraries nothing here is collected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fakes.gcs import FakeGcs
    from tests.support.fakes.vertex import FakeVertex
    from tests.support.shops import FilledShop

# `make test-gcp` has the environment for these.


@pytest.fixture(scope="session")
def filled_home(filled_shop: FilledShop) -> Path:
    """A home on disk with three snapshots and a model, and its log beside it; tests that change it take a copy."""
    return filled_shop.home


@pytest.fixture(autouse=True)
def _fakes_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait between attempts do so on the fakes' clock."""
    from tests.support.fakes.clock import wait_on_this_clock

    wait_on_this_clock(monkeypatch)


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    """Cloud Storage with one bucket."""
    from tests.support.fakes.gcs import FakeGcs

    with FakeGcs("shop-data") as fake:
        yield fake


@pytest.fixture
def vertex() -> Iterator[FakeVertex]:
    """Vertex AI in europe-west1, with Python and the trainer as images."""
    from tests.support.fakes.vertex import FakeVertex
    from tests.support.gcp_pieces import images

    with FakeVertex("shop", "europe-west1", images()) as fake:
        yield fake


@pytest.fixture
def no_waiting_for_stragglers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster waits seconds for late messages; in these tests hundredths of a second."""
    from tests.support.gcp_pieces import hurry

    hurry(monkeypatch)


@pytest.fixture
def undocumented_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that no discovery document knows are refused by the fakes and do not fail the test."""
    monkeypatch.setattr("tests.support.fakes.service.find_faults", lambda *_: [])
