"""Settings that nobody means: each is refused in a sentence, before anything is read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings, load_settings

ODD = {
    "snapshots": ["lookback = 100000", "lookback = 0", 'cadence = "daily"\nlookback = 40000'],
    "source": [
        'delimiter = "§"',
        'delimiter = "\\""',
        'delimiter = "\\n"',
        'delimiter = "a"',
        'delimiter = "\\u0000"',
        'encoding = "rot13"',
        'encoding = "base64"',
        'encoding = "idna"',
        'encoding = "unicode_escape"',
        'encoding = "no such"',
        'path = "\\u0000"',
        "header_row = 100000000000000000000",
        "max_unreadable_share = nan",
    ],
    "landing": ['folder = "\\u0000"', "settle_seconds = inf", "settle_seconds = nan"],
    "reading": ["max_memory_gb = inf", "max_unpacked_gb = 1e300", "max_minutes = nan"],
    "model": ["seed = 99999999999999999999999", "margin_rule = nan", "k_range = [3, 100000]"],
    "cleaning": ["service_code_max_digits = 100000000000000000000"],
    "training": ["timeout_minutes = 1e300"],
}


@pytest.mark.parametrize(("section", "line"), [(section, line) for section, lines in ODD.items() for line in lines])
def test_an_odd_setting_is_refused_and_named(tmp_path: Path, section: str, line: str) -> None:
    config = tmp_path / "custseg.toml"
    config.write_text(f"[{section}]\n{line}\n", encoding="utf-8")
    key = line.splitlines()[-1].partition(" ")[0]
    with pytest.raises(BadInputError, match=rf"{section}.*{key}.*; expected "):
        load_settings(config, home=tmp_path, environment={})


KEYS = {
    name: sorted(type(section).model_fields)
    for name, section in Settings()
    if hasattr(type(section), "model_fields") and name != "gcp"
}
VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=4)), max_size=3),
    st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), max_size=2),
)


@given(data=st.data())
def test_no_value_of_any_key_ends_in_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    section = data.draw(st.sampled_from(sorted(KEYS)))
    key, value = data.draw(st.sampled_from(KEYS[section])), data.draw(VALUES)
    config = tmp_path_factory.getbasetemp() / "odd.toml"
    config.write_text(f"[{section}]\n{key} = {as_toml(value)}\n", encoding="utf-8", errors="replace")
    with contextlib.suppress(BadInputError):
        load_settings(config, home=config.parent, environment={})


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(one):08x}" if not 0xD800 <= ord(one) < 0xE000 else "?" for one in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{as_toml(name)} = {as_toml(each)}' for name, each in value.items())} }}"
    return repr(value)
