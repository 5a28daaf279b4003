"""Damages files that ferlib keeps, one at a time, and asks for what they hold.

    python tests/damage.py --cases 200 --seed 0

What is damaged must be refused by name, or what is given must be what the whole file gives:
because it was made again, or because nothing that counts was hit.
"""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import pandas as pd
from kills import write_notebook
from PIL import Image

from ferlib import (
    drawn,
    exports,
    files,
    prediction,
    recipes,
    runtimes,
    sources,
    suite,
    training,
    tuning,
    zoo,
)
from ferlib.backend import keras

FACES = drawn.draw(70, seed=0)
RECIPE = recipes.Recipe("residual", {"widths": [8], "blocks": 1}, epochs=2)
PASSED = (".lock", ".pid", "log.txt")


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def answers(path):
    images = FACES.images[:8, ..., None]
    opened = runtimes.open_model(path)
    return [opened.classes, opened.shares, opened(images).tobytes()]


def fake(recipe, data, out, **_):
    recipe.to_json(out / "recipe.json")
    files.write_json(out / "metrics.json", {"val_accuracy": recipe.learning_rate})


# A kind makes a folder, and gives from it what a user asks for.


def make_cache(folder):
    rows = [f"{i % 7},{' '.join(map(str, FACES.images[i].ravel()))}\n" for i in range(70)]
    source = folder.parent / "faces.csv"
    source.write_text("emotion,pixels\n" + "".join(rows))
    sources.load(source, cache=folder / "cache")


def ask_cache(folder):
    found = sources.load(folder.parent / "faces.csv", cache=folder / "cache")
    return [found.fingerprint, found.classes, found.title, list(found.names), found.votes]


def make_finished(folder):
    training.train(RECIPE, FACES, folder, verbose=False)


def ask_finished(folder):
    model = training.train(RECIPE, FACES, folder, verbose=False)
    names = ("metrics.json", "history.csv", "recipe.json")
    texts = {name: (folder / name).read_text() for name in names}
    seen = zoo.read_seen(folder / "model.keras").tobytes()
    return [
        *(w.tobytes() for w in model.get_weights()),
        texts,
        seen,
        answers(folder / "model.keras"),
    ]


def make_half(folder):
    try:
        training.train(RECIPE, FACES, folder, callbacks=[Stop()], verbose=False)
    except KeyboardInterrupt:
        return


def ask_half(folder):
    model = training.train(RECIPE, FACES, folder, verbose=False)
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
    return [*(w.tobytes() for w in model.get_weights()), history.to_csv()]


def search(folder, trials):
    with mock.patch.object(training, "train", fake):
        return tuning.tune(FACES, folder, method="random", trials=trials, verbose=False)


def make_search(folder):
    search(folder, 3)


def ask_search(folder):
    before = tuning.best(folder)
    table = search(folder, 4).drop(columns=["seconds", "memory_mb"])
    assert len(pd.read_csv(folder / "trials.csv")) == 4
    return [before, tuning.best(folder), table.to_csv()]


def make_run(folder):
    code = "Path(out, 'metrics.json').write_text('{\"cnn\": {\"accuracy\": 0.5}}')"
    first = "from pathlib import Path\nPath(out).mkdir(exist_ok=True)"
    write_notebook(folder / "notebooks/01_one.ipynb", first, code)
    suite.run(data="drawn:70", project=folder)


def ask_run(folder):
    run = folder / "runs/quick"
    told = suite.run(data="drawn:70", project=folder)
    table = suite.results(run)
    assert (run / "report.html").read_text().endswith("</html>")
    return [table.to_csv(), told["status"], (run / "01_one/metrics.json").read_text()]


def make_csv(folder):
    for number in range(60):
        path = folder.parent / "pictures" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(FACES.images[number]).save(path)
    predicted(folder, 55)


def predicted(folder, count):
    pictures = sorted((folder.parent / "pictures").iterdir())[:count]
    options = {"model": "tiny", "detect": False, "progress": False}
    prediction.predict_to_csv(list(map(str, pictures)), folder / "found.csv", **options)


def ask_csv(folder):
    predicted(folder, 60)
    return [(folder / "found.csv").read_text()]


def make_onnx(folder):
    exports.export("tiny", folder / "tiny.onnx")


def ask_onnx(folder):
    return answers(folder / "tiny.onnx")


def make_tflite(folder):
    exports.export("tiny", folder / "tiny.tflite", to="litert")


def ask_tflite(folder):
    return answers(folder / "tiny.tflite")


KINDS = ("cache", "finished", "half", "search", "run", "csv", "onnx", "tflite")


def targets(kind, folder):
    """Names the files of a kind that are damaged."""
    folder = folder / "runs" if kind == "run" else folder
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if not path.name.endswith(PASSED)]


def harm(data, how, chance):
    """Damages the content of a file."""
    if how == "emptied":
        return b""
    if how == "cut":
        return data[: chance.randrange(len(data))]
    if how == "cut at its end":
        return data[: -chance.randrange(1, min(200, len(data)))]
    changed = bytearray(data)
    if how == "zeroes":
        start = chance.randrange(len(data))
        changed[start : start + 512] = bytes(len(changed[start : start + 512]))
        return bytes(changed)
    for _ in range({"a bit": 1, "20 bytes": 20}[how]):
        place = chance.randrange(len(data))
        changed[place] ^= 1 << chance.randrange(8) if how == "a bit" else chance.randrange(1, 256)
    return bytes(changed)


HOW = ("emptied", "cut", "cut at its end", "zeroes", "a bit", "20 bytes")


def main(cases, seed, kinds=KINDS):
    """Tries so many cases, kinds and files of them in turn; gives counts and faults."""
    chance, counts, faults, slowest = random.Random(seed), collections.Counter(), [], 0.0
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="damage-") as root:
        wanted = {}
        for kind in kinds:
            made = Path(root, kind, "whole")
            made.mkdir(parents=True)
            globals()[f"make_{kind}"](made)
            copy = shutil.copytree(made, made.with_name("case"))
            wanted[kind] = globals()[f"ask_{kind}"](copy)
            shutil.rmtree(copy)
        for number in range(cases):
            kind = kinds[number % len(kinds)]
            made = Path(root, kind, "whole")
            copy = shutil.copytree(made, made.with_name("case"))
            names = targets(kind, copy)
            path = names[number // len(kinds) % len(names)]
            how = chance.choice(HOW)
            old = path.read_bytes()
            path.write_bytes(harm(old, how, chance))
            case, began = f"{kind}, {path.relative_to(copy)}: {how}", time.perf_counter()
            try:
                got = globals()[f"ask_{kind}"](copy)
                end = "the same" if got == wanted[kind] else "another answer"
            except (ValueError, OSError, RuntimeError) as error:
                is_named = path.name in str(error) or str(path.parent) in str(error)
                end = "refused by name" if is_named else f"refused without a name: {error!r}"
            except Exception as error:
                end = f"{type(error).__name__}: {error}"
            slowest = max(slowest, time.perf_counter() - began)
            counts[kind, end if end in ("the same", "refused by name") else "FAULT"] += 1
            if end not in ("the same", "refused by name"):
                faults.append(f"{case}: {end[:300]}")
                print("FAULT", faults[-1], flush=True)
            shutil.rmtree(copy)
    return counts, faults, slowest


if __name__ == "__main__":
    import resource  # POSIX alone has it

    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(KINDS))
    told = parser.parse_args()
    counts, faults, slowest = main(told.cases, told.seed, told.kinds.split(","))
    for key, count in sorted(counts.items()):
        print(*key, count, sep="\t")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"slowest {slowest:.1f} s; {len(faults)} faults; {peak / 1e6:.0f} MB")
    sys.exit(bool(faults))
