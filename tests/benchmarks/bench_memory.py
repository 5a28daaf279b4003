"""Measures what a search holds in memory after each of many short trials.

    python tests/benchmarks/bench_memory.py OUT [--trials 30] [--pictures 300]

Small networks of changing size learn one epoch of drawn faces in one process. Writes
`OUT/trials.csv` and `OUT/memory.png`, and prints the MB after some trials and the slope over those
after the tenth.
"""

import argparse

import matplotlib
import numpy as np

matplotlib.use("agg")

from ferlib import drawn, recipes, tuning


def space(hp, base):
    width = hp.Int("width", 4, 12)
    return base.replace(
        model="residual",
        options={"widths": (width, 2 * width), "blocks": hp.Int("blocks", 1, 2)},
        learning_rate=hp.Float("learning_rate", 1e-3, 1e-1, sampling="log"),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=300)
    args = parser.parse_args()
    faces = drawn.draw(args.pictures, seed=1)
    base = recipes.Recipe(batch_size=32, ema=0.9, mixup=0.2)
    options = {"trials": args.trials, "epochs": 1, "method": "random"}
    table = tuning.tune(faces, args.out, base=base, space=space, **options)
    figure = table.plot(x="number", y="memory_mb", ylim=(0, None), legend=False, figsize=(6.4, 2.4))
    figure.set(xlabel="trial", ylabel="memory, MB")
    figure.figure.savefig(f"{args.out}/memory.png", dpi=120, bbox_inches="tight")
    for number in (n for n in (1, 5, 10, 20, 30) if n <= args.trials):
        print(f"after trial {number}: {table.memory_mb[number - 1]:.0f} MB")
    late = table[table.number >= min(10, args.trials // 2)]
    slope = np.polyfit(late.number, late.memory_mb, 1)[0]
    print(f"{table.memory_mb.min():.0f} to {table.memory_mb.max():.0f} MB, {slope:+.1f} MB a trial")
