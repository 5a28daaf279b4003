"""What borrowed features are worth: one backbone frozen, fine-tuned, and from random weights.

    python tests/benchmarks/bench_transfer.py WEIGHTS [SOURCE] --out DIR [--backbone MobileNet]
        [--preprocessing caffe] [--size 128] [--epochs 16] [--only frozen,fine_tuned]

WEIGHTS is a weights file of the backbone without its top, or "imagenet". A run that was stopped
goes on. Accuracies are on val, with 95 % intervals; minutes are those of training, for fine-tuning
without those of the frozen classifier that it starts from. The recipe is `fine_tuned` with the
moving average of the weights, which needs the thousands of steps that there are here.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

from ferlib import cleaning, evaluation, recipes, training


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help='weights file of the backbone, or "imagenet"')
    parser.add_argument("source", nargs="?", help="without it, what ferlib finds")
    parser.add_argument("--out", required=True, type=Path, help="folder of the trainings")
    parser.add_argument("--backbone", default="MobileNet")
    parser.add_argument("--preprocessing", default="", help="without it, the backbone's own")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=recipes.RECIPES["fine_tuned"].epochs)
    parser.add_argument("--only", default="frozen,fine_tuned,scratch")
    args = parser.parse_args()
    data, rows = cleaning.prepare(args.source), {}
    common = {"backbone": args.backbone, "size": args.size, "preprocessing": args.preprocessing}
    borrowed, random = ({**common, "weights": weights} for weights in (args.weights, ""))
    tuned = recipes.RECIPES["fine_tuned"].replace(epochs=args.epochs, ema=0.998)
    plans = {
        "frozen": recipes.RECIPES["frozen"].replace(options=borrowed),
        "fine_tuned": tuned.replace(
            options=random | {"trained": "all"}, init=str(args.out / "frozen" / "model.keras")
        ),
        "scratch": tuned.replace(options=random | {"trained": "scratch"}, learning_rate=1e-3),
    }
    for name in args.only.split(","):
        print(name, flush=True)
        training.train(plans[name], data, args.out / name)
        made = json.loads((args.out / name / "metrics.json").read_text())
        report = evaluation.evaluate(args.out / name / "model.keras", data, split="val")
        rows[name] = vars(report.metrics["accuracy"]) | {
            "epochs": made["epochs"],
            "minutes": made["seconds"] / 60,
            "parameters": made["parameters"],
        }
    title = f"{args.backbone} at {args.size} pixels, weights {Path(args.weights).name}"
    print(f"\n{title}, val of {data.title}\n{pd.DataFrame(rows).T.round(3).to_string()}")


if __name__ == "__main__":
    main()
