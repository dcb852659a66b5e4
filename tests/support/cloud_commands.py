"""Stand-ins for gcloud, bq and curl on the fakes, by Google's client libraries; and custseg with the fakes' addresses.

``python -m tests.support.cloud_commands COMMAND ARGUMENTS…``, with the addresses in ``FAKE_STORAGE``, ``FAKE_BIGQUERY``
and ``FAKE_VERTEX``. They take what ``deploy/first_contact.sh`` says to them and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import cloud_config


def gcloud(arguments: Sequence[str]) -> None:  # noqa: C901  (one case for each command)
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform_v1 as api
    from google.cloud import storage

    parser = argparse.ArgumentParser()
    for option in ("--project", "--region", "--location", "--display-name", "--format", "--deployed-model-id"):
        parser.add_argument(option)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--recursive", action="store_true")
    parser.add_argument("words", nargs="+")
    options = parser.parse_intermixed_args(arguments)
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    place = {"api_endpoint": os.environ["FAKE_VERTEX"]}

    def vertex(kind: Any) -> Any:
        return kind(transport="rest", credentials=credentials, client_options=ClientOptions(**place))

    parent = f"projects/{options.project}/locations/{options.region}"
    *verb, named = options.words if options.words[-1] != "create" else (*options.words, "")
    match verb:
        case ["storage", *what]:
            client = storage.Client(
                options.project, credentials, client_options={"api_endpoint": os.environ["FAKE_STORAGE"]}
            )
            bucket = client.bucket(named.removeprefix("gs://"))
            if what == ["rm"] and options.recursive:
                bucket.delete(force=True)
            elif what == ["buckets", "create"]:
                client.create_bucket(bucket, location=options.location)
            else:
                parser.error(f"no {what}")
        case ["ai", "endpoints", "create"]:
            endpoint = {"display_name": options.display_name}
            _say(vertex(api.EndpointServiceClient).create_endpoint(parent=parent, endpoint=endpoint).result().name)
        case ["ai", "endpoints", "describe"] if options.format == "value(deployedModels.id)":
            found = vertex(api.EndpointServiceClient).get_endpoint(name=f"{parent}/endpoints/{named}")
            _say(";".join(each.id for each in found.deployed_models))
        case ["ai", "endpoints", "undeploy-model"]:
            request = {"endpoint": f"{parent}/endpoints/{named}", "deployed_model_id": options.deployed_model_id}
            vertex(api.EndpointServiceClient).undeploy_model(request).result()
        case ["ai", "endpoints", "delete"]:
            vertex(api.EndpointServiceClient).delete_endpoint(name=f"{parent}/endpoints/{named}").result()
        case ["ai", "models", "delete"]:
            vertex(api.ModelServiceClient).delete_model(name=f"{parent}/models/{named}").result()
        case _:
            parser.error(f"no {verb}")


def bq(arguments: Sequence[str]) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    parser = argparse.ArgumentParser()
    for option in ("--project_id", "--location", "--use_legacy_sql", "--source_format"):
        parser.add_argument(option)
    for flag in ("--dataset", "-r", "-f"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("words", nargs="+")
    options = parser.parse_intermixed_args(arguments)
    client = bigquery.Client(
        options.project_id,
        AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": os.environ["FAKE_BIGQUERY"]},
    )
    match options.words:
        case ["mk", name] if options.dataset:
            client.create_dataset(bigquery.Dataset(f"{options.project_id}.{name}"))
        case ["rm", name] if options.r and options.f:
            client.delete_dataset(name, delete_contents=True, not_found_ok=True)
        case ["query", sql] if options.use_legacy_sql == "false":
            for row in client.query(sql).result():
                _say(" ".join(map(str, row.values())))
        case ["load", table, path] if options.source_format == "PARQUET":
            config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET)
            with Path(path).open("rb") as file:
                client.load_table_from_file(file, f"{options.project_id}.{table}", job_config=config).result()
        case _:
            parser.error(f"no {options.words}")


def curl(arguments: Sequence[str]) -> None:
    try:
        with urllib.request.urlopen(arguments[-1], timeout=10) as answer:  # noqa: S310  (on loopback)
            _say(answer.read().decode())
    except OSError:
        sys.exit(22)


def custseg(arguments: Sequence[str]) -> None:
    """The command on a small demo, with the settings of a small shop and the addresses of the fakes."""
    from custseg_assets import cli
    from tests.support.shops import quiet, use_small_demo

    path = Path(arguments[arguments.index("--config") + 1])
    endpoints = {name: os.environ[f"FAKE_{fake}"] for name, fake in _FAKES.items()}
    with_fakes = path.with_name(f"fakes-{path.name}")
    with_fakes.write_text(f"{path.read_text()}\n{cloud_config(endpoints=endpoints)}")
    given = [str(with_fakes) if argument == str(path) else argument for argument in arguments]
    with pytest.MonkeyPatch.context() as patch, quiet():
        use_small_demo(patch)
        sys.exit(cli.main(given))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


_FAKES = {"storage": "STORAGE", "bigquery": "BIGQUERY", "aiplatform": "VERTEX"}
COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"gcloud": gcloud, "bq": bq, "curl": curl, "custseg": custseg}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2:])
