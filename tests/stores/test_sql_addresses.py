"""Addresses of databases: what they name, and that none with a password is taken or shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.settings import load_settings
from custseg_assets.stores.sql_addresses import SCHEMES, SqlAddress, is_address, parse_address
from tests.support.files import REPOSITORY


def test_an_address_of_a_server_is_taken_apart() -> None:
    address = parse_address("postgres://shop%40home@db.example:5433/my%20shop?sslmode=require")
    assert address == SqlAddress("postgresql", "shop@home", "db.example", 5433, "my shop", {"sslmode": "require"})
    assert (address.place, address.label) == ("postgresql://db.example:5433/my shop", "my shop")
    assert parse_address("mariadb://db.example/shop").kind == "MySQL"
    snowflake = parse_address("snowflake://shop@account-1/db/public?warehouse=small")
    assert (snowflake.host, snowflake.database) == ("account-1", "db/public")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://shop:{}@db.example/shop",
        "postgresql://shop:{}/with@slash@db.example/shop",
        "postgresql://:{}@db.example/shop",
        "postgresql+psycopg2://shop:{}@db.example/shop",
        "mysql://shop@db.example/shop?password={}",
        "postgresql://db.example/shop?user=shop&sslpassword={}",
        "snowflake://shop@account/db?warehouse=w&token={}",
        "snowflake://shop:{}@account/db",
        "mssql://shop:{}@db.example/shop",
        "duckdb://shop.duckdb?password={}",
    ],
)
@pytest.mark.parametrize("way", ["file", "option", "variable"])
def test_a_password_in_an_address_is_refused_and_not_shown(address: str, way: str, tmp_path: Path) -> None:
    address = address.format("hunter2")
    config = tmp_path / "custseg.toml"
    in_file = f'[source]\npath = "{address}"\n' if way == "file" else ""
    # Another mistake, which an error would show the whole section for.
    config.write_text(f"{in_file}[model]\nk_range = [9, 3]\n")
    with pytest.raises(BadInputError, match=r"has a password in it; .*CUSTSEG_SOURCE_PASSWORD") as refused:
        load_settings(
            config,
            source=address if way == "option" else None,
            environment={"CUSTSEG_SOURCE": address} if way == "variable" else {},
        )
    assert "hunter2" not in str(refused.value)
    with pytest.raises(BadInputError, match="has a password in it") as refused:
        parse_address(address)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "source", ["C:/exports/log.csv", "log:1@home.csv", "bq://project.dataset.table", "gs://bucket/log.csv", "demo"]
)
def test_what_is_no_address_is_left_alone(source: str, tmp_path: Path) -> None:
    assert not is_address(source)
    assert load_settings(source=source, home=tmp_path, environment={}).source.path == source


def test_the_password_comes_from_the_environment_only(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, environment={"CUSTSEG_SOURCE_PASSWORD": "hunter2"})
    assert settings.source_password is not None
    assert settings.source_password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"
    config = tmp_path / "custseg.toml"
    config.write_text('source_password = "hunter2"\n')
    with pytest.raises(BadInputError, match="Set the variable CUSTSEG_SOURCE_PASSWORD instead") as refused:
        load_settings(config, environment={})
    assert "hunter2" not in str(refused.value)


def test_the_settings_on_the_page_about_databases_are_settings(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "sql.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.+?)^```", page, flags=re.MULTILINE | re.DOTALL)
    config = tmp_path / "custseg.toml"
    read = []
    for block in blocks:
        config.write_text(block)
        read.append(load_settings(config, environment={}).source)
    assert [is_address(source.path or "") for source in read] == [True, False]
    assert all(f"{scheme}://" in page for scheme in SCHEMES)


@pytest.mark.parametrize("slashes", ["", "/"])
def test_the_file_that_is_there_decides_what_the_slashes_mean(
    slashes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my shop.db").touch()
    assert parse_address(f"sqlite://{slashes}my%20shop.db").database == str(tmp_path / "my shop.db")
    for absolute in (f"sqlite://{tmp_path}/my shop.db", f"sqlite:///{tmp_path}/my shop.db"):
        assert parse_address(absolute).database == str(tmp_path / "my shop.db")


def test_an_address_that_may_be_two_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shop.db"
    inside = tmp_path / str(path).lstrip("/")
    inside.parent.mkdir(parents=True)
    for file in (path, inside):
        file.touch()
    with pytest.raises(BadInputError, match=f"may be the file {re.escape(str(path))} or the file .* in this folder"):
        parse_address(f"duckdb://{path}")
    assert parse_address(f"duckdb:///{path}").database == str(path)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("oracle://shop@db.example/shop", "is of no database that custseg reads; expected postgresql://"),
        ("postgresql://db.example:many/shop", "Port could not be cast"),
        ("snowflake:///shop", "names no account"),
        ("duckdb://nothing.duckdb", "there is no file nothing.duckdb; expected the file of a database"),
        ("sqlite:///nothing.db", "there is no file /nothing.db or nothing.db"),
    ],
)
def test_what_no_database_has_is_refused(address: str, found: str) -> None:
    with pytest.raises(BadInputError, match=found):
        parse_address(address)
