"""The ``custseg`` command. Everything heavy is imported by the subcommand that needs it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custseg_assets import no_telemetry as telemetry
from custseg_assets.command_line import FAILED, CommandParser, as_private_as, run_command, say
from custseg_assets.errors import BadInputError, CustsegError, DamagedHomeError
from custseg_assets.late_imports import put_off_imports

if TYPE_CHECKING:
    from custseg_assets.commands.campaign import FileForm, Starter
    from custseg_assets.commands.decide import Decider
    from custseg_assets.home.open import OpenHome

_COLLECTIONS = (10_000, 50, 10)
"""New objects before a look at the young ones, looks before one at the middle-aged, and of these before one at all.

Python 3.11 has 700, 10 and 10. The libraries alone are 700,000 objects that never go; looking through them as often as
Python does took two seconds of a run for all, and one for the young and the middle-aged.
"""


_MODEL_KINDS = ("kmeans", "gaussian_mixture", "deep")
_ALLOCATOR = ("_RJEM_MALLOC_CONF", f"dirty_decay_ms:5000,narenas:{os.cpu_count() or 1}")
"""How long Polars' allocator keeps memory that is free before the system gets it back, and in how many parts.

The next step of a run needs it again, and a page that comes from the system is zeroed first: a twentieth of a run.
Polars says half a second, and four parts for each processor, where what one thread frees is of no use to another.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments, the process' own by default.

    Returns:
        0, 2 where the input cannot be used, 1 where a run failed, or 130 where it was interrupted.
    """
    telemetry.switch_off()
    put_off_imports()
    gc.set_threshold(*_COLLECTIONS)
    # Read when Polars is imported, here and in the processes that this one starts.
    os.environ.setdefault(*_ALLOCATOR)
    return run_command("custseg", lambda: _main(argv), extra="pipeline")


def _main(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    from custseg_assets.settings import home_folder
    from custseg_assets.stores.home import Home
    from custseg_assets.stores.home_format import enter

    home = Home(home_folder())
    with as_private_as(home.root):
        if arguments.command is not _keygen:
            home.require_address()
        if arguments.command in (_verify, _keygen):
            done: int = arguments.command(arguments)
            return done
        try:
            enter(home, say)
            status: int = arguments.command(arguments)
        except (ImportError, KeyboardInterrupt, OSError, SystemExit):
            raise
        except BaseException as error:
            # Also what Polars raises when it panics, which is no Exception.
            from custseg_assets.commands.verify import explain

            if (explained := explain(error, home, arguments.config)) is None:
                raise
            if isinstance(error, CustsegError):
                say(f"custseg: {error}")
            raise explained from error
    return status


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="custseg",
        description="Turns a shop's transaction log into checked, explained customer segments.",
        epilog="Everything is kept in the folder that CUSTSEG_HOME names (.custseg without it). "
        "Exit codes: 2 input that cannot be used, 1 a run that failed, 130 interrupted.",
    )
    parser.add_version()
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = CommandParser(add_help=False)
    shared.add_argument(
        "--config", metavar="FILE", help="configuration (custseg.toml where it exists, or else the home's own settings)"
    )

    writing = CommandParser(add_help=False, parents=[shared])
    writing.add_argument(
        "--reconfigure",
        action="store_true",
        help="where the configuration differs from the home's own settings, take it from now on, without being asked",
    )

    run = commands.add_parser(
        "run", parents=[writing], help="take the source in and make everything that is out of date"
    )
    run.add_argument(
        "--source",
        metavar="PATH|postgresql://…|bq://…|demo",
        help="a csv, csv.gz, parquet, xlsx or zip file, a folder of them, "
        "the address of a database, bq://project.dataset.table, or the demo",
    )
    run.add_argument(
        "--replace",
        action="store_true",
        help="let the source take the place of other data of your own, with all that was made of them",
    )
    run.add_argument("--through", metavar="YYYY-MM-DD", type=_day, help="stop at the period that holds this day")
    run.add_argument(
        "--engine",
        choices=("auto", "polars", "duckdb", "spark", "bigquery"),
        help="where work as large as the log is done this time, instead of [engine] name; the tables are the same",
    )
    run.set_defaults(command=_run)

    inspect = commands.add_parser(
        "inspect",
        parents=[shared],
        help="show what would be read of a source, and a configuration for it; stores nothing",
    )
    inspect.add_argument(
        "source", metavar="PATH|bq://…|demo", nargs="?", help="as for run; the configured one without it"
    )
    inspect.add_argument("--out", metavar="FILE", type=Path, help="write the configuration to this file as well")
    inspect.add_argument("--force", action="store_true", help="let --out replace a file that somebody has changed")
    inspect.set_defaults(command=_inspect)

    ui = commands.add_parser("ui", parents=[writing], help="Dagster's web interface and daemon, on loopback")
    ui.add_argument("--port", type=int, default=3000)
    ui.set_defaults(command=_ui)

    status = commands.add_parser(
        "status", parents=[shared], help="champion, last snapshot, drift, release, what is stale"
    )
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(command=_status)

    _add_fire_drill(commands, shared)
    _add_compare(commands, shared)

    retrain = commands.add_parser(
        "retrain",
        parents=[writing],
        help="train a challenger on the newest closed snapshot and hold it against the champion",
    )
    retrain.set_defaults(command=_retrain)

    decided = CommandParser(add_help=False, parents=[writing])
    decided.add_argument("--why", metavar="TEXT", required=True, help="kept with the decision")
    decided.add_argument("--by", metavar="NAME", default=None, help="who decides (the user of this machine)")
    promote = commands.add_parser("promote", parents=[decided], help="put a challenger in force that the gate did not")
    promote.add_argument("model_version", metavar="MODEL")
    promote.set_defaults(command=_promote)
    rollback = commands.add_parser(
        "rollback", parents=[decided], help="put the champion before, and its release, back in force"
    )
    rollback.set_defaults(command=_rollback)

    replay = commands.add_parser(
        "replay",
        parents=[shared],
        help="play history through the sensors, in a home of its own, and print the timeline",
    )
    replay.add_argument("--from", dest="first", metavar="KEY", help="the snapshot to begin with; the first without it")
    replay.add_argument("--to", dest="last", metavar="KEY", help="the last snapshot; the newest without it")
    replay.add_argument("--keep", metavar="DIR", type=Path, help="play in this new home and leave it there")
    replay.set_defaults(command=_replay)

    vertex = commands.add_parser(
        "vertex", parents=[shared], help="serve the release on an endpoint of Vertex AI: a canary, all of it, and back"
    )
    vertex.add_argument("verb", choices=["status", "canary", "full", "back"])
    vertex.set_defaults(command=_vertex)

    _add_campaign(commands, shared, writing)
    _add_dvc(commands, shared)
    _add_verify(commands, shared)
    _add_keygen(commands)
    _add_export(commands, shared)
    return parser


def _add_fire_drill(commands: Any, shared: CommandParser) -> None:
    drill = commands.add_parser("fire-drill", parents=[shared], help="inject known changes and say which are seen")
    drill.add_argument("--partition", metavar="KEY", help="the snapshot; the newest complete one without it")
    drill.add_argument(
        "--customers", metavar="N", type=int, help="in each report; as many as the snapshot has without it"
    )
    drill.add_argument("--repetitions", metavar="N", type=int, default=200, help="of each change (200)")
    drill.set_defaults(command=_fire_drill)


def _add_compare(commands: Any, shared: CommandParser) -> None:
    compare = commands.add_parser(
        "compare", parents=[shared], help="fit other models, and show each beside the one in force; changes nothing"
    )
    compare.add_argument(
        "--kinds", nargs="+", choices=_MODEL_KINDS, default=["kmeans"], help="of models; deep needs TensorFlow (kmeans)"
    )
    compare.add_argument("--k", metavar="LOW-HIGH", type=_range, help="numbers of clusters ([model] k_range)")
    compare.add_argument("--partition", metavar="KEY", help="the snapshot; the newest complete one without it")
    compare.add_argument("--out", metavar="FILE.png", type=Path, help="write the picture to this file as well")
    compare.set_defaults(command=_compare)


def _add_campaign(commands: Any, shared: CommandParser, writing: CommandParser) -> None:
    campaign = commands.add_parser(
        "campaign",
        help="write to a segment, hold a share of it out, and see what it changed",
        description="Campaigns with a holdout: who is written to, who is not, and what the difference is.",
    )
    verbs = campaign.add_subparsers(required=True, metavar="COMMAND")
    named = CommandParser(add_help=False)
    named.add_argument("name", metavar="NAME", help="of the campaign: letters, digits, - and _")
    who = CommandParser(add_help=False)
    who.add_argument("--by", metavar="NAME", default=None, help="who decides (the user of this machine)")
    start = verbs.add_parser(
        "start", parents=[writing, named, who], help="say what could be seen, ask, and write the audience to a file"
    )
    start.add_argument("--segment", metavar="NAME|ID", action="append", required=True, help="to write to; several add")
    start.add_argument("--holdout", metavar="SHARE", type=_share, default=0.2, help="of each segment, held out (0.2)")
    start.add_argument("--days", metavar="N", type=int, default=30, help="that customers are watched (30)")
    start.add_argument(
        "--starts", metavar="YYYY-MM-DD", type=_day, help="first day that counts; the day after the last observed one"
    )
    start.add_argument("--salt", metavar="TEXT", help="of the hash that makes the groups; a random one without it")
    start.add_argument("--yes", action="store_true", help="start it without being asked")
    start.set_defaults(command=_campaign_start)
    audience = verbs.add_parser(
        "audience", parents=[shared, named], help="write the audience to a file again, without the holdout"
    )
    audience.set_defaults(command=_campaign_audience)
    for verb in (start, audience):
        verb.add_argument("--out", metavar="FILE", type=Path, help=".csv or .parquet (NAME.csv)")
        verb.add_argument("--raw", action="store_true", help="leave texts as they are, as for export")
        verb.add_argument("--decimal-comma", action="store_true", help="numbers like 1,5 and ; between cells")
    listing = verbs.add_parser("list", parents=[shared], help="every campaign with its state")
    listing.set_defaults(command=_campaign_list)
    report = verbs.add_parser("report", parents=[shared, named], help="audience against holdout, with intervals")
    report.set_defaults(command=_campaign_report)
    end = verbs.add_parser("end", parents=[writing, named, who], help="end one before its time")
    end.add_argument("--why", metavar="TEXT", required=True, help="kept with it")
    end.set_defaults(command=_campaign_end)


def _add_dvc(commands: Any, shared: CommandParser) -> None:
    dvc = commands.add_parser(
        "dvc",
        help="promoted models in a git repository: export one, compare one, make a home of one",
        description="Promoted models with what they were made from, in a git repository whose large files DVC keeps.",
    )
    verbs = dvc.add_subparsers(required=True, metavar="COMMAND")
    named = CommandParser(add_help=False, parents=[shared])
    named.add_argument("model_version", metavar="MODEL", help="its version, as 'custseg status' has it")
    named.add_argument(
        "--repo",
        metavar="DIR",
        type=Path,
        help="folder in the repository; [versions] repository, or else the working folder, without it",
    )
    export = verbs.add_parser(
        "export", parents=[named], help="write a promoted model to the repository, send its data to the remote, tag it"
    )
    export.add_argument("--remote", metavar="NAME", help="of DVC; [versions] remote, or else its default, without it")
    export.set_defaults(command=_dvc_export)
    restore = verbs.add_parser(
        "restore", parents=[named], help="make a home of an export, to look at, in the folder that CUSTSEG_HOME names"
    )
    restore.set_defaults(command=_dvc_restore)
    verify = verbs.add_parser("verify", parents=[named], help="compare an export with the home")
    verify.add_argument("--refit", action="store_true", help="train the exported model again as well")
    verify.set_defaults(command=_dvc_verify)


def _add_verify(commands: Any, shared: CommandParser) -> None:
    verify = commands.add_parser(
        "verify", parents=[shared], help="whether everything in the home is as it was written; mend what is not"
    )
    verify.add_argument(
        "--mend", action="store_true", help="set aside what is damaged, and have the next run make it anew where it can"
    )
    verify.add_argument("--json", action="store_true", help="for programs")
    verify.set_defaults(command=_verify)


def _add_keygen(commands: Any) -> None:
    keygen = commands.add_parser(
        "keygen", help="make the keys that releases are signed and checked with: FILE, and FILE.pub for the service"
    )
    keygen.add_argument("file", metavar="FILE", type=Path, help="new file for the private key; keep it to yourself")
    keygen.set_defaults(command=_keygen)


def _add_export(commands: Any, shared: CommandParser) -> None:
    export = commands.add_parser(
        "export",
        parents=[shared],
        help="write the list of customers, or a table, to a file",
        description="Write the list of customers, or a table, to a file: its newest snapshot, or all its periods.",
    )
    export.add_argument("table", metavar="TABLE", help="customers, or a table such as segment_profiles")
    partitions = export.add_mutually_exclusive_group()
    partitions.add_argument("--partition", metavar="KEY", help="one period or snapshot")
    partitions.add_argument("--all", action="store_true", help="every snapshot, with its key in the column period")
    for option, words in (
        ("--segment", "are in it"),
        ("--moved-from", "left it since the snapshot before"),
        ("--moved-to", "came to it since the snapshot before"),
    ):
        export.add_argument(
            option, metavar="NAME|ID", action="append", default=[], help=f"only customers who {words}; of several, any"
        )
    export.add_argument("--out", metavar="FILE", required=True, type=Path, help=".parquet or .csv")
    export.add_argument(
        "--raw",
        action="store_true",
        help="leave texts of a csv as they are; without it those that a spreadsheet would compute (=, +, -, @) get a '",
    )
    export.add_argument(
        "--decimal-comma",
        action="store_true",
        help="write numbers of a csv like 1,5, with ; between cells, as spreadsheets in many languages expect it",
    )
    export.add_argument(
        "--with-holdout",
        action="store_true",
        help="with the customers whom a running campaign holds out: for figures, not to write to",
    )
    export.set_defaults(command=_export)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2011-11-30") from None


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write it as 0.2") from None


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if low.isdecimal() and (high or low).isdecimal() and 2 <= int(low) <= int(high or low) <= 30:
        return int(low), int(high or low)
    raise argparse.ArgumentTypeError(f"{text!r} is no range of 2 to 30; write it as 3-6, or 4")


def _open(arguments: argparse.Namespace) -> OpenHome:
    """The home that the environment names, to be looked at, with the configuration that was given."""
    from custseg_assets.commands.settings_change import changed_settings
    from custseg_assets.home.open import OpenHome
    from custseg_assets.settings import load_settings, settings_file

    home = OpenHome(load_settings(arguments.config))
    if changes := changed_settings(home):
        say(
            f"settings: {settings_file(arguments.config)}, which differs from the home's own in "
            f"{', '.join(change.name for change in changes)}; 'custseg run --reconfigure' takes it"
        )
    return home


def _open_unless_restored(arguments: argparse.Namespace) -> OpenHome:
    """The same, where it has a history of its own."""
    from custseg_assets.home.restored import require_not_restored

    home = _open(arguments)
    require_not_restored(home.paths)
    return home


def _open_to_write(
    arguments: argparse.Namespace, source: str | None = None, *, replaces: bool = False, engine: str | None = None
) -> OpenHome:
    """The same, to be written to, where its own settings stay or somebody wants the others."""
    from custseg_assets.commands.settings_change import require_wanted_settings
    from custseg_assets.home.open import OpenHome
    from custseg_assets.home.restored import require_not_restored
    from custseg_assets.settings import load_settings, settings_file
    from custseg_assets.stores.home import Home

    settings = load_settings(arguments.config, source=source)
    require_not_restored(Home(settings.home))
    home = OpenHome(settings, engine=settings.engine.with_name(engine) if engine else None)
    home.require_engine()
    file = settings_file(arguments.config)
    require_wanted_settings(home, say, file, takes_others=arguments.reconfigure, replaces=replaces)
    return home


def _run(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.run import Runner
    from custseg_assets.commands.status import closing_table

    home = _open_to_write(arguments, arguments.source, replaces=arguments.replace, engine=arguments.engine)
    runner = Runner(home, say)
    n_runs = runner.run(arguments.through, replaces=arguments.replace)
    print(closing_table(home, n_runs, runner.other_model))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.draft_file import require_replaceable, write_draft
    from custseg_assets.commands.inspect import inspect
    from custseg_assets.settings import DEMO, load_settings

    out: Path | None = arguments.out
    if out and not arguments.force:
        require_replaceable(out)
    # Another file than the home's is looked at as it is, and not as the home's are read.
    settings = load_settings(arguments.config, source=arguments.source, has_home=arguments.source is None)
    lines: list[str] = []
    refusal: BadInputError | None = None

    def write(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    try:
        inspect(settings.source.path or DEMO, settings, write, is_kept=out is not None)
    except BadInputError as error:
        # What is refused has a draft as well, to be completed.
        refusal = error
    if out and lines:
        write_draft(out, lines)
        more = "to be completed" if refusal else "the source can be read with it, once you have looked at it"
        say(f"written to {out}: {more}")
    if refusal:
        raise refusal
    return 0


def _ui(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.ui import serve_ui

    return serve_ui(_open_to_write(arguments), arguments.port, say)


def _status(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.status import status

    print(status(_open(arguments), as_json=arguments.json))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.verify import as_json, describe, is_sound, verify
    from custseg_assets.settings import home_folder
    from custseg_assets.stores.home import Home
    from custseg_assets.stores.home_format import enter

    home = Home(home_folder())
    with contextlib.suppress(DamagedHomeError):
        enter(home, say)
    mended, verdicts = verify(home, arguments.config, mends=arguments.mend)
    if arguments.json:
        print(as_json(home.root, mended, verdicts))
    else:
        for line in describe(mended, verdicts):
            print(line)
    return 0 if is_sound(verdicts) else FAILED


def _compare(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.compare import compare

    kinds = list(dict.fromkeys(arguments.kinds))
    print(compare(_open(arguments), kinds, arguments.k, arguments.partition, arguments.out, say))
    return 0


def _fire_drill(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.fire_drill import fire_drill

    print(
        fire_drill(
            _open_unless_restored(arguments), arguments.partition, arguments.customers, arguments.repetitions, say
        )
    )
    return 0


def _retrain(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.run import Runner
    from custseg_assets.commands.status import newest_decision

    home = _open_to_write(arguments)
    Runner(home, say).retrain()
    print(newest_decision(home))
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.decide import promote
    from custseg_assets.commands.run import Runner

    print(promote(Runner(_open_to_write(arguments), say), arguments.model_version, _decider(arguments)))
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.decide import rollback
    from custseg_assets.commands.run import Runner

    print(rollback(Runner(_open_to_write(arguments), say), _decider(arguments)))
    return 0


def _decider(arguments: argparse.Namespace) -> Decider:
    import getpass

    from custseg_assets.commands.decide import Decider

    return Decider(arguments.by or getpass.getuser(), arguments.why)


def _replay(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.replay import replay

    for line in replay(_open_unless_restored(arguments), arguments.first, arguments.last, arguments.keep, say):
        print(line, flush=True)
    return 0


def _vertex(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.vertex import serve_on_vertex
    from custseg_assets.settings import load_settings

    print(serve_on_vertex(load_settings(arguments.config), arguments.verb))
    return 0


def _campaign_start(arguments: argparse.Namespace) -> int:
    import secrets

    from custseg_assets.commands.campaign import default_file, start
    from custseg_assets.commands.run import Runner
    from custseg_assets.home.campaigns import Wish
    from custseg_assets.stores.campaigns import require_name

    name = require_name(arguments.name)
    wish = Wish(
        name,
        arguments.segment,
        arguments.holdout,
        arguments.days,
        arguments.salt or secrets.token_hex(8),
        arguments.starts,
    )
    form = _audience_form(arguments, arguments.out or default_file(name))
    print(start(Runner(_open_to_write(arguments), say), wish, form, _starter(arguments), is_wanted=arguments.yes))
    return 0


def _campaign_audience(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.campaign import default_file, write_audience
    from custseg_assets.stores.campaigns import require_name

    form = _audience_form(arguments, arguments.out or default_file(require_name(arguments.name)))
    for line in write_audience(_open(arguments), arguments.name, form):
        print(line)
    return 0


def _audience_form(arguments: argparse.Namespace, out: Path) -> FileForm:
    from custseg_assets.commands.campaign import FileForm

    return FileForm(out, arguments.raw, arguments.decimal_comma)


def _campaign_list(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.campaign import list_campaigns

    for line in list_campaigns(_open(arguments)):
        print(line)
    return 0


def _campaign_report(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.campaign import report

    for line in report(_open(arguments), arguments.name):
        print(line)
    return 0


def _campaign_end(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.campaign import end_campaign
    from custseg_assets.commands.run import Runner

    runner = Runner(_open_to_write(arguments), say)
    print(end_campaign(runner, arguments.name, _starter(arguments), arguments.why))
    return 0


def _starter(arguments: argparse.Namespace) -> Starter:
    import getpass
    from datetime import UTC, datetime

    from custseg_assets.commands.campaign import Starter

    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    return Starter(arguments.by or getpass.getuser(), now)


def _dvc_export(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.dvc import export

    print(export(_open(arguments), arguments.model_version, arguments.repo, arguments.remote))
    return 0


def _dvc_restore(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.dvc import restore
    from custseg_assets.settings import home_folder, load_settings
    from custseg_assets.stores.home import Home

    # The home is not there yet, and its settings come from the export.
    versions = load_settings(arguments.config).versions
    print(restore(Home(home_folder()), versions, arguments.model_version, arguments.repo))
    return 0


def _dvc_verify(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.dvc import verify

    lines, is_equal = verify(_open(arguments), arguments.model_version, arguments.repo, say, refits=arguments.refit)
    for line in lines:
        print(line)
    return 0 if is_equal else FAILED


def _keygen(arguments: argparse.Namespace) -> int:
    from custseg_assets.stores.signatures import make_key_pair

    public = make_key_pair(arguments.file)
    print(f"{arguments.file}: the private key. Set CUSTSEG_SIGNING_KEY to it where `custseg` runs, and nowhere else.")
    print(f"{public}: the public key, for `custseg-serving --require-signature`.")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from custseg_assets.commands.export import Selection, export_table

    selection = Selection(
        arguments.partition, arguments.all, arguments.segment, arguments.moved_from, arguments.moved_to
    )
    said = export_table(
        _open(arguments),
        arguments.table,
        selection,
        arguments.out,
        is_raw=arguments.raw,
        has_decimal_comma=arguments.decimal_comma,
        has_held_out=arguments.with_holdout,
    )
    for line in said:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
