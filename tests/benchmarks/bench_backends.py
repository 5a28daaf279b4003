"""Measures training steps of compact on each backend and in each precision, one after the other.

    python tests/benchmarks/bench_backends.py [--python DIR/bin/python ...] [--recipe compact]

Each Python given (without any, this one) is asked on every backend it has. "torch as it comes" is
Keras's torch backend without what `ferlib.backend` changes in it. Seconds for an epoch of FER2013's
28,709 pictures, from the median of ten steps; drawn faces stand in, as the speed is the same.
"""

import argparse
import json
import os
import subprocess
import sys

import pandas as pd

ASKED = """
import importlib.util, json, statistics, sys, time
backend, precision, name = sys.argv[1:]
if not importlib.util.find_spec(backend.split()[0]):
    sys.exit(77)
import keras
batch_norm = keras.layers.BatchNormalization.call
if backend.startswith("torch"):
    from keras.src.backend.torch import nn
    permute = nn._transpose_spatial_inputs
from ferlib import batches, drawn, training
from ferlib.devices import Spread
if backend == "torch as it comes":
    keras.layers.BatchNormalization.call = batch_norm
    nn._transpose_spatial_inputs = permute
recipe = recipes.RECIPES[name].replace(precision=precision, teachers=())
faces = drawn.draw(recipe.batch_size, seed=0)
images, wanted = faces.images[..., None], batches.targets(faces.labels)
learner = training._compile(training._build(recipe), recipe, 200, Spread.over("one"))
seconds = []
for _ in range(13):
    start = time.perf_counter()
    learner.train_on_batch(images, wanted)
    seconds.append(time.perf_counter() - start)
print(json.dumps(statistics.median(seconds[3:]) * 28709 / len(faces)))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="Pythons to ask")
    parser.add_argument("--recipe", default="compact")
    args = parser.parse_args()
    rows = {}
    for python in args.python:
        for backend in ("tensorflow", "jax", "torch as it comes", "torch"):
            for precision in ("float32", "mixed_bfloat16"):
                environment = os.environ | {"KERAS_BACKEND": backend.split()[0]}
                asked = subprocess.run(
                    [python, "-c", ASKED, backend, precision, args.recipe],
                    env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                    capture_output=True,
                    text=True,
                )
                if asked.returncode == 77:
                    continue
                if asked.returncode:
                    sys.exit(asked.stderr)
                seconds = json.loads(asked.stdout.splitlines()[-1])
                rows.setdefault(backend, {})[precision] = seconds
                print(f"{backend}, {precision}: {seconds:.1f} s an epoch", flush=True)
    table = pd.DataFrame(rows).T
    slowest = table.max(axis=None)
    print(f"\n{table.round(1)}\n\ntimes as fast as the slowest\n{(slowest / table).round(2)}")


if __name__ == "__main__":
    main()
