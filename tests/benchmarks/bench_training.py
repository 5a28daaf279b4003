"""Measures training: pictures a second on each backend, and minutes to 55, 60 and 65 % on val.

    python tests/benchmarks/bench_training.py [SOURCE] [--python DIR/bin/python ...] [--out DIR]
        [--only speeds,quick,compact,classic_quick,classic] [--minutes 60] [--epochs 14]

First the speeds: every recipe in float32 and bfloat16, on every backend that the Pythons given
have (without any, this one), from a few batches of drawn faces. "torch as it comes" is Keras's
torch backend without `ferlib.torch_layout`. Then the race, on `$KERAS_BACKEND`: each recipe trains
until it has reached 65 % on val, or its epochs or minutes are over; what it never reached has no
time in the table. The time is that of whole epochs, validation included, without the start of the
program. With `--out` a race that was stopped continues, and two processes can share the work: each
on a core of its own, with other parts in `--only`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

NAMES = ("quick", "compact", "classic_quick", "classic")
LEVELS = (0.55, 0.60, 0.65)
ASKED = """
import contextlib, importlib.util, sys
backend, precision, name = sys.argv[1:]
if not importlib.util.find_spec(backend.split()[0]):
    sys.exit(77)
from ferlib import drawn, recipes, torch_layout, training
if backend == "torch as it comes":
    torch_layout.channels_last = contextlib.nullcontext
recipe = recipes.find(name).replace(precision=precision)
faces = drawn.draw(1000, seed=0)
trained = len(faces.of("train")) // recipe.batch_size * recipe.batch_size
print(trained / training.seconds_per_epoch(recipe, faces))
"""


def speeds(pythons: list[str]) -> pd.DataFrame:
    """Measures pictures a second of every recipe on every backend in both precisions."""
    rows = []
    for python in pythons:
        for backend in ("tensorflow", "jax", "torch as it comes", "torch"):
            for precision in ("float32", "mixed_bfloat16"):
                row = {"backend": backend, "precision": precision}
                for name in NAMES:
                    row[name] = _ask(python, backend, precision, name)
                if row[NAMES[0]]:
                    rows.append(row)
                    print(row, flush=True)
    return pd.DataFrame(rows).set_index(["backend", "precision"])


def _ask(python, backend, precision, name):
    """Measures one recipe in a process of its own; None where Python lacks the backend."""
    environment = os.environ | {"KERAS_BACKEND": backend.split()[0]}
    command = [python, "-c", ASKED, backend, precision, name]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True)
    if asked.returncode == 77:
        return None
    if asked.returncode:
        sys.exit(asked.stderr)
    return float(asked.stdout.splitlines()[-1])


def race(recipe, data, folder: Path, minutes: float) -> pd.DataFrame:
    """Trains a recipe until it is at the highest level or out of time; gives its history."""
    from ferlib import training
    from ferlib.backend import keras

    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            history = pd.read_csv(folder / "history.csv")
            late = history.seconds.sum() > 60 * minutes
            if late or history.val_accuracy.max() >= LEVELS[-1]:
                self.model.stop_training = True

    training.train(recipe, data, folder, callbacks=[Enough()])
    return pd.read_csv(folder / "history.csv")


def row(history: pd.DataFrame, pictures: int) -> dict:
    """Says how fast a training was, in pictures a second and in minutes to each level."""
    spent = history.seconds.cumsum() / 60
    made = {"pictures a second": pictures / history.seconds[1:].median()}
    for level in LEVELS:
        made[f"minutes to {level:.0%}"] = spent[history.val_accuracy >= level].min()
    made |= {"epochs": len(history), "minutes": spent.iloc[-1]}
    return made | {"best on val": history.val_accuracy.max()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="without it, what ferlib finds")
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="Pythons to ask")
    parser.add_argument("--only", default=",".join(["speeds", *NAMES]), help="some of the parts")
    parser.add_argument("--epochs", type=int, default=14, help="compact's, shorter than shipped")
    parser.add_argument("--minutes", type=float, default=60, help="most of them for one recipe")
    parser.add_argument("--precision", default="float32", help="Keras's dtype policy in the race")
    parser.add_argument("--out", help="folder that keeps the trainings")
    args = parser.parse_args()
    only = args.only.split(",")
    if unknown := set(only) - {"speeds", *NAMES}:
        parser.error(f"no part {', '.join(unknown)}; there are speeds, {', '.join(NAMES)}")
    pd.set_option("display.width", 200)
    if "speeds" in only:
        print(f"\npictures a second\n{speeds(args.python).round(0).to_string()}\n")
    racing = [name for name in NAMES if name in only]
    if not racing:
        return
    from ferlib import cleaning, recipes

    data = cleaning.prepare(args.source)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in racing:
            recipe = recipes.RECIPES[name].replace(precision=args.precision)
            if name == "compact":
                recipe = recipe.replace(epochs=args.epochs)
            print(name, flush=True)
            history = race(recipe, data, Path(args.out or folder) / name, args.minutes)
            rows[name] = row(history, len(data.of("train")))
    print(f"\n{pd.DataFrame(rows).T.round(3).to_string(na_rep='never')}")


if __name__ == "__main__":
    main()
