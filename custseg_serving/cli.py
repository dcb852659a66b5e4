"""The command ``custseg-serving``: serve releases, create, list and revoke API keys, serve a demo with a new key."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from custseg_assets.command_line import CommandParser, as_private_as, require_free, run_command
from custseg_assets.errors import BadInputError
from custseg_assets.stores.releases import releases
from custseg_assets.stores.signatures import RequiredSignature
from custseg_serving.keys import MAX_KEYS, SCOPES, KeyFile, make_key
from custseg_serving.login_link import LINK_SECONDS, make_token
from custseg_serving.settings import ServingSettings, VertexRoutes

DEFAULT_PER_SECOND = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command("custseg-serving", lambda: _main(arguments), extra="serving")


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    command = {"keys": _manage_keys, "demo": _serve_demo, None: _serve}[options.command]
    settings = settings_from(options, os.environ)
    with as_private_as(settings.home):
        return command(settings, options)


def settings_from(options: argparse.Namespace, variables: Mapping[str, str]) -> ServingSettings:
    """Settings from the command line and the environment.

    Args:
        options: the parsed command line.
        variables: the environment: ``CUSTSEG_HOME``, ``CUSTSEG_FOLLOW``, ``CUSTSEG_KEYS``, ``CUSTSEG_PUBLIC_KEY``, and
            what Vertex AI sets in a prediction container.

    Raises:
        BadInputError: ``AIP_HTTP_PORT`` is no number, or ``--follow`` is no bucket.
    """
    bucket = options.follow or variables.get("CUSTSEG_FOLLOW")
    if bucket and not bucket.startswith("gs://"):
        raise BadInputError(f"--follow {bucket}", "gs://bucket/prefix", "Name the bucket that the pipeline writes to.")
    public_key = options.require_signature or variables.get("CUSTSEG_PUBLIC_KEY")
    routes, port, artifact = None, variables.get("AIP_HTTP_PORT"), None
    if port is not None:
        if not port.isdecimal():
            raise BadInputError(f"AIP_HTTP_PORT={port!r}", "the number of a port", "Vertex AI sets it; unset it here.")
        routes = VertexRoutes(
            variables.get("AIP_HEALTH_ROUTE", "/vertex/health"), variables.get("AIP_PREDICT_ROUTE", "/vertex/predict")
        )
        artifact = variables.get("AIP_STORAGE_URI") or None
    return ServingSettings(
        home=Path(options.home or variables.get("CUSTSEG_HOME") or ".custseg").absolute(),
        # The platform's container must be reachable from outside it; everywhere else loopback is the default.
        host=options.host or ("0.0.0.0" if routes else "127.0.0.1"),  # noqa: S104
        port=options.port or int(port or 8080),
        workers=options.workers,
        threads=options.threads,
        follow=bucket,
        keys_file=Path(variables["CUSTSEG_KEYS"]).absolute() if variables.get("CUSTSEG_KEYS") else None,
        is_open=options.open,
        public_key=Path(public_key).absolute() if public_key else None,
        run_folder=Path(options.run_dir).absolute() if options.run_dir else None,
        # Nothing takes the prediction log out of a container that serves the files of a model.
        prediction_folder=Path(options.prediction_log).absolute() if options.prediction_log else None,
        log_predictions=not (options.no_prediction_log or artifact),
        vertex=routes,
        artifact=artifact,
    )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="custseg-serving",
        description="Answer which segment a customer is in, and why, from the releases that `custseg run` writes.",
        epilog="Requests need a key: `custseg-serving keys create NAME` makes one. `demo` brings its own.",
    )
    parser.add_version()
    _add_places(parser)
    parser.add_argument(
        "--workers", type=_whole_number(1, 64), default=2, metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=_whole_number(1, 64), default=4, metavar="N", help="each (default: %(default)s)"
    )
    parser.add_argument(
        "--follow",
        metavar="gs://BUCKET/PREFIX",
        help="bring releases from there (default: $CUSTSEG_FOLLOW, else the home's)",
    )
    parser.add_argument(
        "--require-signature",
        metavar="PUBLIC_KEY",
        help="serve only releases that are signed with the key of this file (default: $CUSTSEG_PUBLIC_KEY, else any)",
    )
    parser.add_argument(
        "--open", action="store_true", help="answer this machine without a key, while no key was created"
    )
    parser.add_argument("--no-prediction-log", action="store_true", help="keep no record of what was answered")
    parser.add_argument(
        "--prediction-log", metavar="DIR", help="write it there, where the home cannot be written (default: the home's)"
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="what workers share is there while they run (default: .serving in the home)"
    )
    parser.add_argument("--verbose", action="store_true", help="log at debug level")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="serve the last release with a link that logs in once, and a key that ends with it"
    )
    # Before the command or after it; what is not given after it must not hide what was given before.
    _add_places(demo, default=argparse.SUPPRESS)
    keys = commands.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    create = keys.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name", help="who it is for")
    create.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="what it is good for; may be repeated (default: lookup and score)",
    )
    create.add_argument(
        "--per-second",
        type=_whole_number(1, 1_000_000),
        default=DEFAULT_PER_SECOND,
        metavar="N",
        help="customers it may ask for each second (default: %(default)s)",
    )
    keys.add_parser("list", help="show all keys, never their secrets")
    keys.add_parser("revoke", help="make a key useless, at once").add_argument("key_id", help="as `list` shows it")
    return parser


def _add_places(parser: CommandParser, **how: Any) -> None:
    parser.add_argument("--home", help="folder of the pipeline (default: $CUSTSEG_HOME, else .custseg)", **how)
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)", **how)
    parser.add_argument("--port", type=_whole_number(1, 65_535), help="port to listen on (default: 8080)", **how)


def _whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def _manage_keys(settings: ServingSettings, options: argparse.Namespace) -> int:
    file = KeyFile(settings.keys, is_named=settings.keys_file is not None)
    if options.action == "create":
        print(file.create(options.name, options.scope or ["lookup", "score"], options.per_second))
        print("This is the only time the key is shown.", file=sys.stderr)
    elif options.action == "revoke":
        revoked = file.revoke(options.key_id)
        print(f"{revoked.key_id} ({revoked.name}) is revoked.")
    else:
        for key in file.read():
            state = "active" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d}"
            print(f"{key.key_id}  {key.created_at:%Y-%m-%d}  {state:<18}  {','.join(key.scopes):<18}  {key.name}")
    return 0


def _serve(settings: ServingSettings, options: argparse.Namespace, login: tuple[str, str] | None = None) -> int:
    _check_access(settings)
    require_free(settings.host, settings.port)
    if settings.public_key:
        RequiredSignature(settings.public_key)  # an error here, and not in every worker
    from custseg_serving.logs import log_as_json
    from custseg_serving.server import Server

    log_as_json(is_verbose=options.verbose)
    Server(settings, login).serve()
    return 0


def _check_access(settings: ServingSettings) -> None:
    """Check that it was said who may ask: by keys, or by ``--open`` on a home that never had any.

    Raises:
        BadInputError: nobody could ask anything, or everybody everything.
    """
    keys = KeyFile(settings.keys, is_named=settings.keys_file is not None).read()
    if settings.is_open and not settings.is_loopback:
        raise BadInputError(
            f"--open on {settings.host}",
            "an address that only this machine can reach",
            "Leave --host out, or leave --open out and make a key with `custseg-serving keys create NAME`.",
        )
    if settings.is_open and keys:
        raise BadInputError(
            f"--open although {settings.keys} has keys", "no keys", "Leave --open out and ask with a key."
        )
    has_keys = settings.own_key is not None or any(key.revoked_at is None for key in keys)
    if not (settings.is_open or has_keys or settings.vertex):
        raise BadInputError(
            f"{settings.host} without API keys",
            "keys, or --open on an address that only this machine can reach",
            "Make one with `custseg-serving keys create NAME`, or look around with `custseg-serving demo`.",
        )


def _serve_demo(settings: ServingSettings, options: argparse.Namespace) -> int:
    # In memory only: whatever ends the server, the key ends with it.
    key, token = make_key(f"demo of {datetime.now(UTC):%Y-%m-%d %H:%M}", SCOPES, DEFAULT_PER_SECOND, slot=MAX_KEYS)
    settings = replace(settings, is_open=False, own_key=key)
    _check_access(settings)
    require_free(settings.host, settings.port)
    address, link = f"http://{settings.host}:{settings.port}", make_token()
    if not releases(settings.releases):
        print(f"There is no release under {settings.releases} yet: the dashboard says what to do, and waits for one.")
    print(f"Dashboard: {address}/login/{link}")
    print(
        f"  This link logs your browser in, once, within {LINK_SECONDS // 60} minutes; after that, log in with the key."
    )
    print(f"API: {address}/docs")
    print(f"Key, shown once and worth nothing when this ends: {token}", flush=True)
    return _serve(settings, options, (link, key.key_id))


if __name__ == "__main__":
    sys.exit(main())
