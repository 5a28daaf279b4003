"""Exports of a model for other runtimes, each with a card that says what it lost."""

from __future__ import annotations

import errno
import json
import tempfile
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferlib import evaluation, files, runtimes, zoo
from ferlib.labels import SIDE

if TYPE_CHECKING:
    import keras

    from ferlib.faces import FERData

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
"""Format of an export -> how its files end."""

_PROPERTY = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""How a property "sha256" of 64 characters begins in an ONNX file, as protobuf has it."""


def export(
    model: str | Path,
    out: str | Path | None = None,
    *,
    to: str | None = None,
    int8: bool = False,
    calibration: np.ndarray | None = None,
    data: FERData | None = None,
) -> Path:
    """Writes a model for onnxruntime or LiteRT, in float32 or in 8-bit integers.

    In the 8-bit form of ONNX convolutions are integer: the ranges of their inputs are means over
    batches of eight calibration pictures, their weights have a scale for each channel
    (onnxruntime's QDQ) and use 7 of the 8 bits. Processors without VNNI add two products in 16
    bits, which overflow where weights use all 8. In that of LiteRT all layers are integer.

    The file carries a card (`runtimes.Classifier.card`): what it was made from, the classes, and
    with `data` what it lost on val (see `measure`).

    Args:
        model: A shipped model's name, or a model's file.
        out: Where to write. Default: beside the model's file, with the suffix `.onnx`, where
            `predict` finds it and uses it, `-int8.onnx`, `.tflite` or `-int8.tflite`, which
            `predict` takes by their names.
        to: The format, a key of `SUFFIXES`. None takes what the suffix of `out` says, else ONNX.
        int8: Whether to quantise.
        calibration: uint8 [N, 48, 48], a few hundred pictures of the train split.
        data: What the loss is measured on; its val split is used. None measures nothing.

    Returns:
        The file written.

    Raises:
        ImportError: If what writes the format is not installed.
        ValueError: If the format is unknown or not what the suffix of `out` says, calibration
            pictures are missing, or `data` has no val split.
    """
    suffix = Path(out).suffix.lower() if out else ""
    to = to or next((name for name, its in SUFFIXES.items() if its == suffix), "onnx")
    if to not in SUFFIXES:
        raise ValueError(f"There is no format {to!r}; known are {', '.join(SUFFIXES)}.")
    if out and suffix != SUFFIXES[to]:
        raise ValueError(f"{out}: a file of {to} ends in {SUFFIXES[to]}.")
    if int8 and (calibration is None or not len(calibration)):
        raise ValueError("An 8-bit model needs calibration pictures: give some of the train split.")
    if to == "onnx":
        runtimes.need("onnx", "onnx", "onnxruntime", "tf2onnx", what="An export")
    import keras

    file = zoo.find(model)
    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    network = keras.Model(images, zoo.load(file)(images, training=False))  # as `predict` asks
    network(np.zeros((1, SIDE, SIDE, 1), "uint8"))  # Keras exports only what was called before
    out = Path(out or file.with_name(f"{file.stem}{'-int8' * int8}{SUFFIXES[to]}"))
    classes = zoo.read_classes(file)
    card = {"made_from": files.digest(file), "classes": classes}
    card["shares"] = zoo.read_shares(file, classes)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        files.naming(out),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".exporting-") as folder,
    ):
        made = Path(folder, f"model{SUFFIXES[to]}")
        some = np.asarray(calibration)[..., None] if int8 else None
        write, add_card = (_write_onnx, _add_to_onnx) if to == "onnx" else (_write_litert, _append)
        write(network, made, some)
        if data is not None:
            opened = runtimes.open_model(made, classes=classes)
            card["val"] = measure(replace(opened, has_card=True), file, data)
        add_card(made, card)
        files.replace(made, out)
    return out


def measure(export: runtimes.Model, model: str | Path, data: FERData) -> dict:
    """Measures what an export lost on the val split.

    Args:
        export: The export's file, or what `runtimes.open_model` gave.
        model: The model that it was made from.
        data: The data; its val split is used.

    Returns:
        A dict that JSON can hold: data and fingerprint, what it was measured on; pictures, their
        number; accuracy, the export's; lost, by how much the model's is higher; same, the share of
        pictures that both give the same class; and difference, the largest one of a probability.
    """
    ours, theirs = (
        evaluation.evaluate(each, data, split="val", resamples=2) for each in (export, model)
    )
    accuracies = [each.metrics["accuracy"].value for each in (ours, theirs)]
    answers = ours.probabilities, theirs.probabilities
    return {
        "data": data.title,
        "fingerprint": data.fingerprint,
        "pictures": len(ours.labels),
        "accuracy": round(accuracies[0], 5),
        "lost": round(accuracies[1] - accuracies[0], 5),
        "same": round(float((answers[0].argmax(1) == answers[1].argmax(1)).mean()), 5),
        "difference": float(f"{np.abs(answers[0] - answers[1]).max():.2g}"),
    }


def _write_onnx(network: keras.Model, path: Path, calibration: np.ndarray | None) -> None:
    """Writes the ONNX file of a network, quantised where there are calibration pictures."""
    with warnings.catch_warnings():  # of what Keras imports for it
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        network.export(str(path), format="onnx", verbose=False)
    if calibration is None:
        return
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        batches = iter(np.array_split(calibration, -(-len(calibration) // 8)))

        def get_next(self):
            return next(({"images": batch} for batch in self.batches), None)

    quantize_static(
        path,
        path,
        Batches(),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,  # unsigned: fast on CPUs
        extra_options={"CalibMovingAverage": True},  # no outlier stretches a range
    )


def _add_to_onnx(path: Path, card: dict) -> None:
    """Writes a card into an ONNX file."""
    import onnx

    whole = onnx.load(path)
    texts = {name: json.dumps(value) for name, value in card.items()}
    onnx.helper.set_model_props(whole, texts | {"made_from": card["made_from"]})
    whole.producer_name = runtimes.SEALED
    path.write_bytes(files.seal(whole.SerializeToString(), _PROPERTY))


def _write_litert(network: keras.Model, path: Path, calibration: np.ndarray | None) -> None:
    """Writes the LiteRT file of a network, quantised where there are calibration pictures."""
    import tensorflow as tf

    saved = str(path.with_name("saved"))
    try:
        network.export(saved, format="tf_saved_model", verbose=False)
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message.rpartition("; ")[2]) from error
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture[None]] for picture in calibration)
    path.write_bytes(converter.convert())


def _append(path: Path, card: dict) -> None:
    """Appends a card to a LiteRT file as TensorFlow Lite's metadata appends files, in a zip."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zoo.CARD, json.dumps(card))
    path.write_bytes(files.seal(path.read_bytes()))
