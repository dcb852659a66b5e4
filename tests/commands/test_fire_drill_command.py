"""``custseg fire-drill`` on homes that cannot be drilled; test_run.py drills one that can."""

from custseg_assets.cli import main


def test_an_empty_home_has_nothing_to_drill(home, capsys):
    assert main(["fire-drill", "--repetitions", "1"]) == 2
    assert "custseg run" in capsys.readouterr().err
    assert not home.exists()
