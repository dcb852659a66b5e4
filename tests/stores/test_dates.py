"""Dates of a source: every form by hand, every ambiguity, zones, and random instants in random formats."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.dates import DateReading, recognise_dates
from custseg_assets.stores.sources import open_source

NEW_YEAR = datetime(2024, 1, 1, 9, 30)


def recognise(*texts: str, **keys: Any) -> DateReading:
    counted = pl.Series("text", texts, pl.String).value_counts(name="n")
    return recognise_dates(counted, SourceSettings(**keys), "log.csv, column 'Date'")


def dates(*texts: str, **keys: Any) -> list[datetime | None]:
    column = pl.DataFrame({"text": texts})
    return column.select(recognise(*texts, **keys).instants(pl.col("text"))).to_series().to_list()


def refusal(*texts: str, **keys: Any) -> str:
    with pytest.raises(BadInputError) as raised:
        recognise(*texts, **keys)
    return str(raised.value)


def days(form: str, n: int = 240, first: datetime = NEW_YEAR) -> tuple[list[str], list[datetime]]:
    """The days from ``first`` on, as a format writes them, and what it can say of them."""
    moments = [first + timedelta(days=i) for i in range(n)]
    texts = [moment.strftime(form) for moment in moments]
    return texts, [datetime.strptime(text, form) for text in texts]  # noqa: DTZ007  (the log's own clock)


@pytest.mark.parametrize(
    "form",
    [
        *("%y/%m/%d", "%y.%m.%d %H:%M", "%y-%m-%d"),
        *("%d/%m/%y", "%d.%m.%y", "%d-%m-%y %H:%M:%S", "%m/%d/%y", "%m-%d-%y", "%m.%d.%y"),
        *("%d.%m.%Y", "%m.%d.%Y", "%d/%m/%Y, %H:%M", "%m/%d/%Y, %I:%M:%S\u202f%p", "%d. %m. %Y %H:%M"),
        *("%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%a, %d %b %Y %H:%M:%S", "%Y-%b-%d", "%d-%b-%y", "%A, %B %d, %Y %H:%M"),
        *("%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%dT%H%M%S", "%Y%m%d %H:%M"),
        *("%d%m%y", "%y%m%d", "%m%d%y", "%y%m%d%H%M%S"),
    ],
)
def test_a_log_of_eight_months_is_read_in_the_only_likely_way(form: str) -> None:
    texts, moments = days(form)
    assert dates(*texts) == moments


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("%y/%m/%d", ['"%d/%m/%y" it begins on 2001-01-24 and ends', '"%y/%m/%d" it begins on 2024-01-01 and ends']),
        ("%d.%m.%y", ['"%d.%m.%y" it begins on 2024-01-01', '"%y.%m.%d" it begins on 2001-01-24']),
        ("%y%m%d", ['= "%y%m%d" or "%d%m%y"']),
    ],
)
def test_a_log_of_a_few_days_is_refused_with_what_each_way_would_make_of_it(form: str, lines: list[str]) -> None:
    message = refusal(*days(form, n=20)[0])
    assert [line for line in lines if line not in message] == [], message
    for line in ("%y/%m/%d",) if form == "%y/%m/%d" else ():
        assert dates(*days(form, n=20)[0], date_format=line) == days(form, n=20)[1]


def test_a_two_digit_year_that_is_no_day_or_has_one_digit_is_known() -> None:
    assert dates("31/01/99", "01/02/99") == [datetime(1999, 1, 31), datetime(1999, 2, 1)]
    assert dates("99/01/31", "99/02/01") == [datetime(1999, 1, 31), datetime(1999, 2, 1)]
    assert dates("31/01/68", "31/01/70") == [datetime(2068, 1, 31), datetime(1970, 1, 31)]
    assert dates("24/1/5", "24/12/31") == [datetime(2024, 1, 5), datetime(2024, 12, 31)]
    assert dates("6/1/11", "6/17/11") == [datetime(2011, 6, 1), datetime(2011, 6, 17)]


def test_a_shop_that_bills_on_the_first_of_each_month_for_twenty_years_is_not_taken_for_one_year() -> None:
    texts = [f"01/{month:02}/{year:02}" for year in range(3, 25) for month in range(1, 13)]
    assert "is ambiguous" in refusal(*texts)


def test_short_years_join_long_ones_unless_they_may_come_first() -> None:
    assert dates("6/1/11", "6/17/2011") == [datetime(2011, 6, 1), datetime(2011, 6, 17)]
    message = refusal("24/01/05", "13/02/2024", "14/02/2024")
    assert "holds dates in 2 forms: '13/02/2024' (2 rows), '24/01/05' (1 rows)" in message


def test_one_date_of_the_other_order_within_the_years_of_the_log_stops() -> None:
    texts = [f"{day:02}/01/2024" for day in range(1, 32)] * 20
    message = refusal(*texts, "01/31/2024")
    assert "'13/01/2024' is day first, like 379 more, but '01/31/2024' is month first, like 0 more" in message
    assert dates(*texts, "01/31/2024", date_format="%d/%m/%Y")[-1] is None


def test_a_day_that_does_not_exist_does_not_turn_the_order_of_the_others_round() -> None:
    texts, moments = days("%y/%m/%d")
    assert dates(*texts, "24/02/30", "24/13/01") == [*moments, None, None]
    assert "is ambiguous" in refusal(*texts[:20], "24/02/30")


def test_cells_that_a_spreadsheet_converted_are_refused_with_both_forms() -> None:
    texts = [*["13/01/2024"] * 60, *["2024-05-01 00:00:00"] * 40]
    message = refusal(*texts)
    assert "holds dates in 2 forms: '13/01/2024' (60 rows), '2024-05-01 00:00:00' (40 rows)" in message
    assert "A spreadsheet has probably converted" in message
    assert "in 2 forms" in refusal(*["13/01/2024"] * 60, *["45297"] * 40)
    assert "in 2 forms" in refusal(*["13/01/2024"] * 60, *["01-05-2024"] * 40)
    assert dates(*["13/01/2024"] * 199, "2024-05-01")[-2:] == [datetime(2024, 1, 13), None]


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("1704412800", "seconds", "seconds since 1970: '1704412800' is 2024-01-05, in UTC"),
        ("1704412800.0", "%s", "seconds since 1970: '1704412800.0' is 2024-01-05, in UTC"),
        ("1704412800000", "milliseconds", "milliseconds since 1970: '1704412800000' is 2024-01-05, in UTC"),
        ("1704412800000000", "microseconds", "microseconds since 1970: '1704412800000000' is 2024-01-05, in UTC"),
        ("45296", "excel", "Excel's day numbers: '45296' is 2024-01-05"),
        ("45296.0", "excel", "Excel's day numbers: '45296.0' is 2024-01-05"),
    ],
)
def test_numbers_that_count_are_known_and_said(text: str, unit: str, words: str) -> None:
    assert dates(text) == dates(text, date_format=unit) == [datetime(2024, 1, 5)]
    assert recognise(text).convention.startswith(words)


def test_parts_of_days_and_seconds_are_read() -> None:
    assert dates("45296.6458333333") == [datetime(2024, 1, 5, 15, 30)]
    assert dates("1704412800.25") == [datetime(2024, 1, 5, 0, 0, 0, 250_000)]
    assert dates("43834", date_format="excel-1904") == [datetime(2024, 1, 5)]


def test_numbers_that_may_be_seconds_or_digits_of_a_date_are_refused() -> None:
    message = refusal("2024010515")
    assert '"seconds" it begins on 2034-02-20' in message
    assert '"%Y%m%d%H" it begins on 2024-01-05' in message
    assert "'9999999999'" in refusal("9999999999")


UTC = ["2024-01-05T23:30:00Z", "2024-07-05 23:30:00 UTC", "2024-07-05 23:30:00+00", "2024-07-05 23:30:00.000+00:00"]


def test_instants_in_utc_keep_their_days_and_say_so_until_the_zone_is_set() -> None:
    assert dates(*UTC) == [datetime(2024, 1, 5, 23, 30)] + [datetime(2024, 7, 5, 23, 30)] * 3
    assert recognise(*UTC).convention.startswith(
        "in UTC, and so are its days; where the shop is elsewhere, write time_"
    )
    berlin = dates(*UTC, time_zone="Europe/Berlin")
    assert berlin == [datetime(2024, 1, 6, 0, 30)] + [datetime(2024, 7, 6, 1, 30)] * 3
    assert recognise(*UTC, time_zone="Europe/Berlin").convention == "converted to Europe/Berlin"
    assert dates("1704497400", time_zone="Europe/Berlin") == [datetime(2024, 1, 6, 0, 30)]
    assert dates("45296.5", "45297", time_zone="Europe/Berlin")[0] == datetime(2024, 1, 5, 12)


def test_an_offset_that_changes_with_summer_time_is_the_shops_own() -> None:
    texts = ["2024-01-05 23:30:00 +0100", "2024-07-05 23:30:00 +0200"]
    local = [datetime(2024, 1, 5, 23, 30), datetime(2024, 7, 5, 23, 30)]
    assert dates(*texts) == dates(*texts, time_zone="Europe/Berlin") == local
    assert recognise(*texts).convention == "on the clock of its zone, +0100 and +0200"
    assert recognise("2024-01-05 23:30 EST").convention == "on the clock of its zone, EST"
    named = ["2024-01-05 23:30 CET", "2024-07-05 23:30 CEST"]
    assert dates(*named) == dates(*named, time_zone="Europe/Berlin") == local
    assert dates("2024-01-05 23:30 EST", "2024-07-05 23:30 EDT") == local
    assert dates("2024-01-05 11:30 PM GMT", "2024-07-05 11:30 PM BST") == local


def test_zones_of_several_places_need_the_shops() -> None:
    texts = ["2024-01-05T23:30:00+01:00", "2024-01-05T17:30:00-05:00"]
    assert "times in several zones: +01:00 (1), -05:00 (1)" in refusal(*texts)
    assert dates(*texts, time_zone="Asia/Tokyo") == [datetime(2024, 1, 6, 7, 30)] * 2
    assert "several zones" in refusal("2024-01-05 23:30 EST", "2024-01-05 23:30 PST")
    assert "times in CST (1), but [source] time_zone" in refusal("2024-01-05 23:30 CST", time_zone="Europe/Berlin")
    assert "times with a zone and without" in refusal("2024-01-05T23:30:00Z", "2024-01-05T23:30:00")


@pytest.mark.parametrize("zone", ["%z", " %z", "%:z", " %Z", "Z", " UTC", "%#z"])
def test_a_set_format_may_end_with_a_zone(zone: str) -> None:
    texts = ["05/01/2024 23:30:00Z", "05/01/2024 23:30:00 UTC", "05/01/2024 23:30:00+0000"]
    form = f"%d/%m/%Y %H:%M:%S{zone}"
    assert dates(*texts, date_format=form) == [datetime(2024, 1, 5, 23, 30)] * 3
    assert dates(*texts, date_format=form, time_zone="Europe/Berlin") == [datetime(2024, 1, 6, 0, 30)] * 3


def test_a_set_format_with_a_zone_elsewhere_is_refused() -> None:
    assert "a zone that does not end the text" in refusal("+01 2024-01-05", date_format="%z %Y-%m-%d")


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y/%m/%dT%H:%M"])
def test_iso_dates_need_no_words(form: str) -> None:
    assert recognise(*days(form)[0]).convention == ""


def test_what_was_decided_is_said_with_an_example(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("customer_id;invoiced_at;line_amount\n1;6/17/2011;5\n2;6/1/2011;5\n")
    told: list[str] = []
    with open_source(tmp_path / "log.csv", SourceSettings(), progress=told.append) as source:
        assert source.lines.collect()["invoiced_at"].to_list() == [datetime(2011, 6, 17), datetime(2011, 6, 1)]
    assert "invoiced_at (month first: '6/17/2011' is 2011-06-17)" in told[0]


def test_a_parquet_of_instants_in_utc_is_told_by_the_shops_clock(tmp_path: Path) -> None:
    moments = pl.Series([datetime(2024, 1, 5, 23, 30)]).dt.replace_time_zone("UTC")
    columns = {"customer_id": ["1"], "invoiced_at": moments, "line_amount": [5.0]}
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    told: list[str] = []
    for zone, expected in ((None, datetime(2024, 1, 5, 23, 30)), ("Europe/Berlin", datetime(2024, 1, 6, 0, 30))):
        settings = SourceSettings(time_zone=zone)
        with open_source(tmp_path / "log.parquet", settings, progress=told.append) as source:
            assert source.lines.collect()["invoiced_at"].to_list() == [expected]
    assert "invoiced_at (in UTC, and so are its days;" in told[0]
    assert "invoiced_at (converted from UTC to Europe/Berlin)" in told[1]


@pytest.mark.parametrize("type_of", [pl.Int64, pl.Float64])
def test_a_parquet_of_milliseconds_is_read(tmp_path: Path, type_of: type[pl.DataType]) -> None:
    counted = pl.Series([1704497400000, 1704497401000], dtype=type_of)
    columns = {"customer_id": ["1", "2"], "invoiced_at": counted, "line_amount": [5.0, 6.0]}
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    with open_source(tmp_path / "log.parquet", SourceSettings(), progress=lambda _: None) as source:
        assert source.lines.collect()["invoiced_at"][0] == datetime(2024, 1, 5, 23, 30)


DATES = [
    f"{a}{mark}{b}{mark}{c}"
    for mark in ("/", "-", ".", ". ", "")
    for a, b, c in (
        *(("%Y", "%m", "%d"), ("%d", "%m", "%Y"), ("%m", "%d", "%Y")),
        *(("%y", "%m", "%d"), ("%d", "%m", "%y"), ("%m", "%d", "%y")),
    )
] + ["%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %y", "%d-%b-%y", "%y-%b-%d", "%a %d %b %Y", "%Y %b %d"]
TIMES = (
    "",
    " %H:%M",
    " %H:%M:%S",
    "T%H:%M:%S.%f",
    " %I:%M %p",
    ", %I:%M:%S %p",
    "%H%M",
    "%H%M%S",
    "T%H%M%S",
    "  %H:%M",
)
COUNTS = ("seconds", "milliseconds", "microseconds", "excel")


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[str], list[datetime], str | None]:
    """Random instants in one random format, and what the texts say; the last is the shop's zone."""
    first = draw(st.datetimes(datetime(1991, 1, 1), datetime(2044, 1, 1)))
    span = draw(st.sampled_from([1, 20, 300, 2000, 9000]))
    n = draw(st.sampled_from([1, 3, 20, 200]))
    random = draw(st.randoms(use_true_random=False))
    moments = [
        (first + timedelta(days=random.randrange(span), seconds=random.randrange(86_400))).replace(microsecond=0)
        for _ in range(n)
    ]
    if draw(st.integers(0, 7)) == 0:
        unit = draw(st.sampled_from(COUNTS))
        since = [(moment - datetime(1970, 1, 1)).total_seconds() for moment in moments]
        if unit == "excel":
            return [str(round(seconds / 86_400 + 25_569, 10)) for seconds in since], moments, None
        factor = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000}[unit]
        return [str(int(seconds) * factor) for seconds in since], moments, None
    date = draw(st.sampled_from(DATES))
    has_marks = re.search("[-/. ]", date) is not None
    time = draw(st.sampled_from([time for time in TIMES if ":" in time or not time or not has_marks]))
    if has_marks and draw(st.booleans()):
        date = date.replace("%d", "%-d").replace("%m", "%-m")
    form = date + time
    texts = [moment.strftime(form) for moment in moments]
    says = [datetime.strptime(text, form.replace("%-", "%")) for text in texts]  # noqa: DTZ007  (the log's own clock)
    if (":" not in time and "T" not in time) or draw(st.booleans()):
        return texts, says, None
    zone = draw(st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata"]))
    end = draw(st.sampled_from(["Z", " UTC", "+00", " +0000", "%z", " %z"]))
    if "%" not in end:
        here = [said.replace(tzinfo=ZoneInfo("UTC")).astimezone(ZoneInfo(zone)).replace(tzinfo=None) for said in says]
        return [text + end for text in texts], here, zone
    ends = [said.replace(tzinfo=ZoneInfo(zone)).strftime(end) for said in says]
    back = [said.replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo("UTC")).astimezone(ZoneInfo(zone)) for said in says]
    kept = draw(st.booleans())
    shown = [text + end for text, end in zip(texts, ends, strict=True)]
    return (shown, says, None) if kept else (shown, [moment.replace(tzinfo=None) for moment in back], zone)


OUTCOMES: dict[str, int] = {"read": 0, "refused": 0}


@settings(max_examples=600, deadline=None)
@given(columns())
def test_random_instants_in_a_random_format_are_read_or_refused(
    column: tuple[list[str], list[datetime], str | None],
) -> None:
    texts, expected, zone = column
    try:
        found = dates(*texts, time_zone=zone)
    except BadInputError:
        OUTCOMES["refused"] += 1
        return
    OUTCOMES["read"] += 1
    assert [pair for pair in zip(texts, found, expected, strict=True) if pair[1] != pair[2]] == []


def test_most_random_columns_are_read() -> None:
    """Runs after the test before it; a reader that refused everything would pass that one."""
    assert OUTCOMES["read"] > OUTCOMES["refused"]
