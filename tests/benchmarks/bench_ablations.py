"""Takes one thing at a time from compact's recipe, or adds one: what pays, what does not?

    python tests/benchmarks/bench_ablations.py [SOURCE] --out DIR [--epochs 10] [--seeds 3]
        [--only "no mixup,no EMA"] [--precision mixed_bfloat16]

All recipes are trained with the same seeds, data and epochs, on a schedule shorter than the
shipped one and at half of compact's widths, which takes a third of the time. A run that was
stopped continues, and the table (also in DIR/ablations.csv) holds what is there, so two processes
can share the work: each on a core of its own, with other lines in `--only`. Accuracies are on
val; choices are made on them.
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

import pandas as pd

from ferlib import cleaning, recipes, training

BASE = recipes.RECIPES["compact"]
BASE = BASE.replace(options=BASE.options | {"widths": [16, 32, 64, 128]})


def change(**fields):
    return {"augmentation": dataclasses.replace(BASE.augmentation, **fields)}


VARIATIONS = {
    "unchanged": {},
    "no augmentation": {"augmentation": None},
    "flips alone": change(shift=0, rotation=0, zoom=0, erase=0),
    "all pictures interpolated": change(sharp=0.0),
    "no random erasing": change(erase=0.0),
    "contrast and brightness": change(contrast=0.3, brightness=0.1),
    "no label smoothing": {"label_smoothing": 0.0},
    "no mixup": {"mixup": 0.0},
    "stronger mixup": {"mixup": 0.8},
    "no EMA": {"ema": 0.0},
    "no dropout": {"options": BASE.options | {"dropout": 0.0}},
    "twice as wide": {"options": BASE.options | {"widths": [32, 64, 128, 256]}},
    "residual blocks at half resolution": {"model": "residual"},
    "whole picture without crop": {"options": BASE.options | {"crop": 48}},
    "SGD with Nesterov": {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
    "class weights": {"class_weights": True},
    "FER+ votes as 0.3 of the target": {"ferplus_weight": 0.3},
}


def summary(out: Path) -> pd.DataFrame:
    """Puts together all finished trainings in a folder, whichever process made them."""
    rows = [
        {"variation": name, **json.loads(path.read_bytes())}
        for name in VARIATIONS
        for path in sorted((out / name.replace(" ", "_")).glob("*/metrics.json"))
    ]
    table = pd.DataFrame(rows).groupby("variation").val_accuracy.agg(["mean", "std", "count"])
    table["against unchanged"] = table["mean"] - table["mean"].get("unchanged", float("nan"))
    return table.sort_values("mean", ascending=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="without it, what ferlib finds")
    parser.add_argument("--out", required=True, type=Path, help="folder of the trainings")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="some of the variations, with commas between")
    parser.add_argument("--precision", default=BASE.precision, help="Keras's dtype policy")
    args = parser.parse_args()
    names = [name.strip() for name in args.only.split(",") if name] or list(VARIATIONS)
    if unknown := set(names) - set(VARIATIONS):
        parser.error(f"no variation {', '.join(unknown)}; there are {', '.join(VARIATIONS)}")
    data = cleaning.prepare(args.source)
    for seed, name in itertools.product(range(args.seeds), names):
        recipe = BASE.replace(**VARIATIONS[name], epochs=args.epochs, seed=seed)
        recipe = recipe.replace(precision=args.precision)
        print(f"{name}, seed {seed}", flush=True)
        training.train(recipe, data, args.out / name.replace(" ", "_") / str(seed), verbose=False)
        table = summary(args.out)
        table.to_csv(args.out / "ablations.csv")
    print(f"\nval accuracy of {data.title} after {args.epochs} epochs\n{table.round(4)}")


if __name__ == "__main__":
    main()
