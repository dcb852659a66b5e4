"""How many customers change segment when nothing changed but the model: phantom moves, by what keeps them low.

``python benchmarks/identity.py HOME 2011-06-01`` takes the customers of one snapshot of a home that ``custseg run``
filled. A first model is trained on them; then, again and again, one on a bootstrap resample of the same customers, by
the functions that the pipeline trains and assigns with. Whoever is then in another segment moved for no reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from tests.support.phantom_moves import WAYS, phantom_moves


def table(moves: pl.DataFrame) -> str:
    """Mean and worst of every way, as Markdown."""
    rows = [f"| {way} | {moves[way].mean():.2%} | {moves[way].max():.2%} |" for way in WAYS]
    return "\n".join(["| | mean | worst |", "|---|---|---|", *rows])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("snapshot", metavar="KEY")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--refits", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    features = OpenHome(load_settings(home=given.home)).tables.read(CUSTOMER_FEATURES, [given.snapshot])
    if features.is_empty():
        raise SystemExit(f"home {given.home} has no snapshot {given.snapshot}; fill it with 'custseg run' first")
    moves = phantom_moves(features, given.k, given.refits, given.seed, print)
    print(f"\n{features.height:,} customers, k = {given.k}, {given.refits} refits\n\n{table(moves)}")


if __name__ == "__main__":
    main()
