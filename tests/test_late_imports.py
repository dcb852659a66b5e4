"""What a run hardly ever needs is executed when it is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from custseg_assets.late_imports import put_off_import

NAME = "put_off_by_a_test"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported, and is forgotten at the end."""
    path = tmp_path / f"{NAME}.py"
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop(NAME, None)


def is_executed() -> bool:
    return "value" in vars(sys.modules[NAME])


def test_a_module_is_executed_at_the_first_use_and_once(module: Path) -> None:
    module.write_text("import sys\nsys.modules[__name__].count = vars().get('count', 0) + 1\nvalue = 4\n")
    put_off_import(NAME)
    import put_off_by_a_test

    assert not is_executed()
    assert put_off_by_a_test.value == 4
    assert put_off_by_a_test.value == 4
    assert put_off_by_a_test.count == 1
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = put_off_by_a_test.other


def test_importing_something_from_a_module_executes_it(module: Path) -> None:
    module.write_text("value = 4\n")
    put_off_import(NAME)
    from put_off_by_a_test import value

    assert value == 4


def test_a_module_that_asks_for_its_own_attributes_is_executed_once(module: Path) -> None:
    module.write_text("import sys\nvalue = getattr(sys.modules[__name__], 'missing', 4)\n")
    put_off_import(NAME)
    import put_off_by_a_test

    assert put_off_by_a_test.value == 4


def test_a_module_keeps_its_own_function_for_missing_attributes(module: Path) -> None:
    module.write_text("value = 4\ndef __getattr__(name):\n    return name.upper()\n")
    put_off_import(NAME)
    import put_off_by_a_test

    assert put_off_by_a_test.value == 4
    assert put_off_by_a_test.other == "OTHER"


def test_a_module_that_is_not_there_or_imported_already_stays_as_it_is(module: Path) -> None:
    put_off_import("not_there_at_all")
    assert "not_there_at_all" not in sys.modules
    module.with_stem("imported_by_a_test").write_text("value = 4\n")
    import imported_by_a_test

    put_off_import("imported_by_a_test")
    import imported_by_a_test as again

    assert again is imported_by_a_test
    assert vars(again)["value"] == 4


def test_a_part_of_a_package_is_bound_to_it_and_executed_at_the_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("from package_of_a_test import part\n")
    (package / "part.py").write_text("value = 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    put_off_import("package_of_a_test.part")
    import package_of_a_test.part

    part = package_of_a_test.part
    assert "value" not in vars(part)
    assert part.value == 4
    assert sys.modules["package_of_a_test.part"] is part
