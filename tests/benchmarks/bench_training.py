"""Trains compact and the classic CNN in one run: pictures a second, and time to 60 and 65 % on val.

    python tests/benchmarks/bench_training.py [SOURCE] [--epochs 14] [--times 6] [--minutes 60]
        [--rate 5e-4] [--precision mixed_bfloat16] [--out DIR] [--only classic]

Each recipe trains until it has reached 65 % on val, or its epochs or minutes are over; the classic
CNN, which comes last, also until it has had `--times` the minutes that the fastest took to 60 %.
What a recipe never reached has no time in the table. The time is that of whole epochs, validation
included, without the start of the program. `$KERAS_BACKEND` chooses the backend of all. With
`--out` a run that was stopped goes on, and two processes can share the work: each on a core of its
own, with other recipes in `--only`.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from ferlib import cleaning, recipes, training

LEVELS = (0.60, 0.65)


class Enough(Exception):
    """Ends a training that has shown what it can."""


def race(recipe, data, folder: Path, minutes: float) -> pd.DataFrame:
    """Trains a recipe until it is at the highest level or out of time; gives its history."""
    past = folder / "history.csv"

    def over(history):
        return history.val_accuracy.max() >= LEVELS[-1] or history.seconds.sum() > 60 * minutes

    def judge(history):
        if over(history):
            raise Enough

    if not (past.exists() and over(pd.read_csv(past))):
        with contextlib.suppress(Enough):
            training.train(recipe, data, folder, on_epoch=judge)
    return pd.read_csv(past)


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
    parser.add_argument("--epochs", type=int, default=14, help="compact's, shorter than shipped")
    parser.add_argument("--times", type=float, default=6, help="the fastest's time, for classic")
    parser.add_argument("--minutes", type=float, default=60, help="most of them for one recipe")
    parser.add_argument("--precision", default="float32", help="Keras's dtype policy")
    parser.add_argument("--rate", type=float, help="the classic CNN's learning rate")
    parser.add_argument("--out", help="folder that keeps the trainings")
    parser.add_argument("--only", default="", help="some of the recipes, with commas between")
    args = parser.parse_args()
    data = cleaning.prepare(args.source)
    plans = {
        "compact_quick": recipes.RECIPES["compact_quick"],
        f"compact in {args.epochs} epochs": recipes.RECIPES["compact"].replace(epochs=args.epochs),
        "classic": recipes.RECIPES["classic"],
    }
    if args.rate:
        plans["classic"] = plans["classic"].replace(learning_rate=args.rate)
    only = [name.strip() for name in args.only.split(",") if name] or list(plans)
    if unknown := set(only) - set(plans):
        parser.error(f"no recipe {', '.join(unknown)}; there are {', '.join(plans)}")
    pictures, rows, fastest = len(data.of("train")), {}, f"minutes to {LEVELS[0]:.0%}"
    with tempfile.TemporaryDirectory() as folder:
        for name in only:
            recipe = plans[name].replace(precision=args.precision)
            print(f"{name}: {recipe.model}", flush=True)
            minutes = args.minutes
            if name == "classic":
                limits = [args.times * told[fastest] for told in rows.values()]
                minutes = np.nanmin([*limits, minutes])
            out = Path(args.out or folder) / name.replace(" ", "_")
            history = race(recipe, data, out, minutes)
            rows[name] = row(history, pictures)
    if len(only) < len(plans):
        return
    table = pd.DataFrame(rows).T
    times = table[[f"minutes to {x:.0%}" for x in LEVELS]]
    table["pictures a second, of classic's"] = (
        table["pictures a second"] / table.loc["classic"].iloc[0]
    )
    allowed = table.loc["classic", "minutes"]
    print(f"\n{table.round(3).to_string(na_rep='never')}\n")
    print("classic's minutes over theirs (at least, where classic never got there):")
    print((times.loc["classic"].fillna(allowed) / times).round(2).to_string(na_rep="never"))


if __name__ == "__main__":
    main()
