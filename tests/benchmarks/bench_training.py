"""Trains the classic CNN and compact in one run: pictures a second, and time to 60 and 65 % on val.

    python tests/benchmarks/bench_training.py [SOURCE] [--minutes 60] [--rate 5e-4] [--out DIR]

Each recipe trains until it has reached 65 % on val, or its epochs or minutes are over; one that
never gets there has no time in the table. The time is that of whole epochs, validation
included, without the start of the program. With `--out` a run that was stopped goes on.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

from ferlib import cleaning, training

LEVELS = (0.60, 0.65)


class Enough(Exception):
    """Ends a training that has shown what it can."""


def race(recipe, data, folder: Path, minutes: float) -> pd.DataFrame:
    """Trains a recipe until it is at the highest level or out of time; gives its history."""

    def judge(history):
        if history.val_accuracy.max() >= LEVELS[-1] or history.seconds.sum() > 60 * minutes:
            raise Enough

    try:
        training.train(recipe, data, folder, on_epoch=judge)
    except Enough:
        pass
    return pd.read_csv(folder / "history.csv")


def row(history, pictures: int) -> dict:
    """Says how fast a training was, in pictures a second and in minutes to each level."""
    spent = history.seconds.cumsum() / 60
    reached = {f"minutes to {x:.0%}": spent[history.val_accuracy >= x].min() for x in LEVELS}
    return {
        "pictures a second": pictures / history.seconds[1:].median(),
        **reached,
        "epochs": len(history),
        "minutes": spent.iloc[-1],
        "best on val": history.val_accuracy.max(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="without it, what ferlib finds")
    parser.add_argument("--minutes", type=float, default=60, help="most of them for one recipe")
    parser.add_argument("--rate", type=float, help="the classic CNN's learning rate")
    parser.add_argument("--out", help="folder that keeps the trainings")
    args = parser.parse_args()
    data = cleaning.prepare(args.source)
    recipes = {name: training.RECIPES[name] for name in ("classic", "compact_quick", "compact")}
    if args.rate:
        recipes["classic"] = recipes["classic"].replace(learning_rate=args.rate)
    pictures, rows = len(data.of("train")), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in recipes.items():
            print(f"{name}, {recipe.model}")
            history = race(recipe, data, Path(args.out or folder) / name, args.minutes)
            rows[name] = row(history, pictures)
    table = pd.DataFrame(rows).T
    times = table[[f"minutes to {x:.0%}" for x in LEVELS]]
    table["times classic's speed"] = table["pictures a second"] / table.loc["classic"].iloc[0]
    print(f"\n{table.round(3).to_string(na_rep='never')}\n\nclassic's minutes over compact's:")
    print((times.loc["classic"] / times).round(2).to_string(na_rep="never"))


if __name__ == "__main__":
    main()
