"""Opens a model file of any kind, ours or other people's, as one function of grey pictures."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferlib import files, zoo
from ferlib.labels import EMOTIONS, SIDE, canonical

if TYPE_CHECKING:
    import keras

    Model = str | Path | keras.Model | "Classifier"

IMAGENET = {1: (0.449, 0.226), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Channels -> mean and standard deviation of ImageNet's pixels, from 0 to 1."""

SCALINGS = {
    "0-255": lambda pixels: pixels,
    "0-1": lambda pixels: pixels / 255,
    "-1-1": lambda pixels: pixels / 127.5 - 1,
    "imagenet": lambda pixels: _standardise(pixels / 255, *IMAGENET[pixels.shape[-1]]),
}
"""What a network expects of its pixels -> how it is made of float32 [N, H, W, C], 0 to 255."""

ALPHABETICAL = {7: tuple(sorted(EMOTIONS)), 8: tuple(sorted((*EMOTIONS, "contempt")))}
"""Number of outputs -> emotions in alphabetical order, as loaders of folders number them."""

AT_ONCE = 2**26
"""The most numbers that a network is given at once, so that large inputs fit into memory."""

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Device -> onnxruntime's provider for it, the quickest first."""

SEALED = "ferlib"
"""Who produced an ONNX file that ends in its own digest (see `files.seal`)."""


@dataclass(frozen=True)
class Classifier:
    """A model of any kind, called with grey pictures, answers probabilities of its classes.

    Args:
        name: The model's file or name.
        classes: Names of its outputs, in their order.
        run: Function from a batch of the network's own input to its output, [N, K].
        shape: Height, width and channels of its input.
        layout: Order of the input's axes: "hwc", "chw", or "hw" where channels have no axis.
        dtype: Type of its input.
        scaling: What it expects of its pixels, a key of `SCALINGS`.
        only: The one number of pictures that a batch of it can have; 0 where it takes any.
        has_card: Whether the file itself says how it is to be read.
        logits: Whether it answers logits, which softmax turns into probabilities.
        keras_model: The Keras model; None for other runtimes.
        card: What an export says of itself: made_from, the SHA-256 of the model's file; classes;
            shares; and where it was measured val, what it lost there (see `exports.measure`).
        device: Where onnxruntime runs it, a key of `PROVIDERS`; "" for other runtimes.
        shares: Each class's share of the data that it was trained on; empty where unknown.
        prior: How far its answers forget these shares, see `to_uniform_prior`: 0 not at all.
    """

    name: str
    classes: tuple[str, ...]
    run: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int, int]
    layout: str
    dtype: str
    scaling: str = "0-255"
    only: int = 0
    has_card: bool = False
    logits: bool = False
    keras_model: keras.Model | None = None
    card: dict = field(default_factory=dict)
    device: str = ""
    shares: tuple[float, ...] = ()
    prior: float = 0.0

    @property
    def at_once(self) -> int:
        """How many pictures are worth gathering for one call, more for a GPU than for a CPU."""
        return 16 if self.device in ("", "cpu") else 256

    @property
    def takes_pixels(self) -> bool:
        """Whether its input is whole numbers, which can only be pixels from 0 to 255."""
        return np.issubdtype(np.dtype(self.dtype), np.integer)

    @property
    def reading(self) -> str:
        """How its input and output are read, in one line."""
        height, width, channels = self.shape
        prior = f", prior uniform ({self.prior:g})" if self.prior else ""
        return (
            f"{height}x{width}x{channels}, pixels {self.scaling}, "
            f"outputs {order_name(self.classes)}{' (logits)' * self.logits}{prior}"
        )

    def adapt(self, images: np.ndarray) -> np.ndarray:
        """Turns grey pictures, uint8 [N, H, W] or [N, H, W, 1], into the network's own input."""
        import cv2

        height, width, channels = self.shape
        grey = images.reshape(images.shape[:3])
        if grey.shape[1:] != (height, width):
            grey = np.stack([cv2.resize(picture, (width, height)) for picture in grey])
        pixels = np.repeat(grey[..., None], channels, axis=-1)
        if not self.takes_pixels:
            pixels = SCALINGS[self.scaling](pixels.astype("float32"))
        if self.layout == "chw":
            pixels = np.moveaxis(pixels, -1, 1)
        if self.layout == "hw":
            pixels = pixels[..., 0]
        return pixels.astype(self.dtype)

    def outputs(self, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Gives what the network itself answers to grey pictures, float32."""
        most = AT_ONCE // int(np.prod(self.shape))
        size = self.only or max(1, min(batch_size, most))
        answers = []
        for start in range(0, len(images), size):
            some = images[start : start + size]
            missing = max(0, self.only - len(some))
            batch = np.concatenate([some, np.repeat(some[:1], missing, axis=0)])
            answers.append(np.asarray(self.run(self.adapt(batch))[: len(some)], "float32"))
        return np.concatenate(answers)

    def __call__(self, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Answers uint8 [N, H, W] or [N, H, W, 1] with probabilities, float32 [N, K]."""
        if not len(images):
            return np.empty((0, len(self.classes)), "float32")
        answers = self.outputs(np.asarray(images), batch_size=batch_size)
        if self.logits:
            from scipy.special import softmax

            answers = softmax(answers, axis=1)
        return to_uniform_prior(answers, self.shares, self.prior) if self.prior else answers


def to_uniform_prior(
    probabilities: np.ndarray, shares: Sequence[float], strength: float = 1.0
) -> np.ndarray:
    """Makes a model's answers forget how frequent each class was in its training (Bayes' rule).

    Args:
        probabilities: float [N, K].
        shares: Share of each of the K classes in the training data.
        strength: 1 answers as if all classes were equally frequent, 0 as trained; more than 1
            goes beyond.

    Returns:
        float32 [N, K]: divided by the shares to the power of `strength`, each row sums to 1.

    Example:
        >>> import numpy as np
        >>> from ferlib import runtimes
        >>> runtimes.to_uniform_prior(np.array([[0.8, 0.2]]), (0.9, 0.1)).round(2)
        array([[0.31, 0.69]], dtype=float32)

    Source: Menon et al., Long-tail learning via logit adjustment (2021, arXiv:2007.07314).
    """
    answers = probabilities / np.asarray(shares) ** strength
    return (answers / answers.sum(axis=1, keepdims=True)).astype("float32")


def open_model(
    model: Model,
    *,
    scaling: str | None = None,
    classes: str | tuple[str, ...] | None = None,
    prior: str | float = "trained",
    device: str | None = None,
) -> Classifier:
    """Opens a model of any kind; a file that would run code of its own is refused.

    Args:
        model: A file (.keras, .h5, .onnx, .tflite; its first bytes decide), a shipped model's
            name, a Keras model, or what this function returned.
        scaling: What it expects of its pixels, a key of `SCALINGS`. None takes what is known of
            the model, else "0-255".
        classes: Names of the outputs in their order, as a tuple or with commas between, or
            "alphabetical". None takes the card's, else FER2013's where there are seven.
        prior: "trained" answers as the model does; "uniform" as if all classes were equally
            frequent; a number is the strength of that, see `to_uniform_prior`.
        device: Where onnxruntime runs an ONNX file, a key of `PROVIDERS`. None takes the quickest
            that is there.

    Returns:
        The Classifier.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the file is no model that can be read; `scaling`, `classes` or `prior` do not
            fit; or a device is named that is not there, or that the model's runtime does not
            choose.
        RuntimeError: If the device that is named does not start.
        ImportError: If the runtime of its kind is not installed.

    Example:
        >>> import numpy as np
        >>> from ferlib import runtimes
        >>> tiny = runtimes.open_model("tiny")
        >>> tiny.classes[3]
        'happy'
        >>> tiny(np.zeros((2, 48, 48, 1), "uint8")).shape
        (2, 7)
    """
    if isinstance(model, str | Path):
        opened = _open_file(model, device)
    elif isinstance(model, Classifier):
        opened = model
    else:
        opened = _of_keras(model, model.name, zoo.read_classes(model), has_card=True)
    if device not in (None, opened.device):
        raise ValueError(
            f"{opened.name} is no ONNX file, and a device can only be chosen for a file of those: "
            "Keras takes the GPU that its backend finds, TFLite the CPU. `ferlib export "
            f"{opened.name}` writes one."
        )
    if scaling is not None:
        if scaling not in SCALINGS:
            raise ValueError(f"scaling is {scaling!r}; it can be {', '.join(SCALINGS)}.")
        if opened.takes_pixels and scaling != "0-255":
            raise ValueError(f'{opened.name} takes whole pixels: its scaling is "0-255".')
        opened = replace(opened, scaling=scaling)
    if classes is not None:
        opened = replace(opened, classes=_parse_classes(classes, opened))
    if prior != "trained":
        opened = replace(opened, prior=_parse_prior(prior, opened))
    return opened


def order_name(classes: tuple[str, ...]) -> str:
    """Names the order of a model's outputs in a few words."""
    if classes == EMOTIONS:
        return "in FER2013's order"
    names = ", ".join(classes)
    return f"alphabetical ({names})" if classes == tuple(sorted(classes)) else names


def need(extra: str, *modules: str, what: str) -> None:
    """Raises ImportError that names the extra, if a module is missing that something needs."""
    if missing := [module for module in modules if not find_spec(module)]:
        raise ImportError(f'{what} needs {", ".join(missing)}: pip install "ferlib[{extra}]".')


def _standardise(pixels, mean, deviation):
    return (pixels - np.float32(mean)) / np.float32(deviation)


def _parse_classes(classes, opened):
    """Gives the names that `classes` means for this model."""
    outputs = len(opened.classes)
    if isinstance(classes, str) and classes.strip() == "alphabetical":
        if outputs not in ALPHABETICAL:
            raise ValueError(
                f"{opened.name} answers {outputs} values; what they are in alphabetical order is "
                "known of 7 and 8: write the names out, with commas between."
            )
        return ALPHABETICAL[outputs]
    names = classes.split(",") if isinstance(classes, str) else classes
    names = tuple(canonical(name) for name in names)
    if len(names) != outputs or len(set(names)) != outputs:
        raise ValueError(
            f"{opened.name} answers {outputs} values, but classes names {len(set(names))}: "
            f"{', '.join(names)}. Name each output once, in their order."
        )
    return names


def _parse_prior(prior, opened):
    """Gives the strength that `prior` means, where the model's shares are known."""
    try:
        strength = 1.0 if prior == "uniform" else float(prior)
    except ValueError:
        strength = -1.0
    if not 0 <= strength < 10:
        raise ValueError(
            f'prior is {prior!r}; it can be "trained", "uniform" or a number from 0 to 10.'
        )
    if len(opened.shares) != len(opened.classes) or min(opened.shares) <= 0:
        raise ValueError(
            f"{opened.name} does not say how frequent each class was in its training, or had none "
            "of one, so that its prior cannot be taken out. Files that ferlib.training writes, and "
            "shipped models, say it."
        )
    return strength


# ---- files -------------------------------------------------------------------------------


def _open_file(model, device):
    path = Path(model)
    if (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} is a TensorFlow SavedModel. Load it with the TensorFlow that wrote it and "
            "save the model as .keras, or turn it into ONNX with tf2onnx."
        )
    path = zoo.find(model)
    files.check(path)
    head = files.head(path)
    if head[4:8] == b"TFL3":
        opened = _open_tflite(path, str(model))
    elif head.startswith(b"\x08") or path.suffix.lower() == ".onnx":
        opened = _open_onnx(path, str(model), device)
    else:
        opened = _open_keras(path, str(model))
    if opened.has_card:
        return opened
    noise = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), "uint8")
    answers = opened.outputs(noise)
    if answers.ndim != 2:
        raise ValueError(f"{path} answers {answers.shape}; a classifier answers [N, classes].")
    is_probability = (answers > -1e-3).all() and np.allclose(answers.sum(axis=1), 1, atol=0.05)
    classes = opened.classes or zoo.unnamed(answers.shape[1])
    return replace(opened, classes=classes, logits=not is_probability)


def _of_keras(model, name, classes, *, has_card, shares=()):
    """Makes a Classifier of a Keras model."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; a "
            "classifier of pictures has one of each."
        )
    return Classifier(
        name=name,
        classes=classes,
        run=model.predict_on_batch,  # for a few pictures quicker than `predict`
        dtype=str(model.inputs[0].dtype),
        has_card=has_card,
        keras_model=model,
        shares=shares,
        **_layout(model.input_shape, name),
    )


def _layout(dimensions, name):
    """Finds `shape` and `layout`, as `Classifier` has them, of a network's input."""
    sizes = [size if isinstance(size, int) and size > 0 else None for size in dimensions[1:]]
    layout = "hwc"
    if len(sizes) == 2:
        sizes, layout = [*sizes, 1], "hw"
    elif len(sizes) == 3 and sizes[0] in (1, 3) and sizes[2] not in (1, 3):
        sizes, layout = [*sizes[1:], sizes[0]], "chw"
    if len(sizes) != 3 or (sizes[2] or 1) not in (1, 3):
        raise ValueError(
            f"{name} takes input of the form {list(dimensions)}; pictures are [N, H, W], or "
            "[N, H, W, C] or [N, C, H, W] with 1 or 3 channels."
        )
    height, width, channels = sizes
    return {"shape": (height or SIDE, width or SIDE, channels or 1), "layout": layout}


def _open_keras(path, name):
    model, has_card = zoo.read(path), bool(zoo.read_card(path))
    classes = zoo.read_classes(path) if has_card else ()
    return _of_keras(model, name, classes, has_card=has_card, shares=zoo.read_shares(path, classes))


def _carded(card):
    """Gives what the card of an export says of it."""
    return {
        "classes": tuple(card.get("classes", ())),
        "shares": tuple(card.get("shares", ())),
        "card": card,
        "has_card": bool(card),
    }


def _open_onnx(path, name, device):
    session, used = _session(path, device)
    entry, about = session.get_inputs()[0], session.get_modelmeta().custom_metadata_map
    if session.get_modelmeta().producer_name == SEALED and "sha256" not in about:
        raise files.damaged(path)  # its end is cut off
    card = {}
    if "made_from" in about and "classes" in about:
        texts = {name: about[name] for name in ("classes", "shares", "val") if name in about}
        card = {name: json.loads(text) for name, text in texts.items()}
        card["made_from"] = about["made_from"]
    dtype = entry.type[len("tensor(") : -1]
    return Classifier(
        name=name,
        run=lambda batch: session.run(None, {entry.name: batch})[0],
        dtype={"float": "float32", "double": "float64"}.get(dtype, dtype),
        only=entry.shape[0] if isinstance(entry.shape[0], int) else 0,
        device=used,
        **_layout(entry.shape, name),
        **_carded(card),
    )


def _session(path, device):
    """Opens an ONNX file on a device, or on the quickest; gives the device too."""
    need("onnx", "onnxruntime", what=str(path))
    import onnxruntime

    wanted = _devices(onnxruntime.get_available_providers(), device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        providers = [PROVIDERS[name] for name in dict.fromkeys([*wanted, "cpu"])]
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as ONNX: it is damaged, incomplete or newer than onnxruntime "
            f"{onnxruntime.__version__}. Get it again, or export it for an older version of ONNX."
        ) from error
    used = next(name for name in PROVIDERS if PROVIDERS[name] in session.get_providers())
    if used != wanted[0]:
        problem = (
            f"onnxruntime has {wanted[0]}, which does not start here: a driver or a library of it "
            f"is missing, or a version does not fit"
        )
        if device:
            raise RuntimeError(f"{problem}. Mend that, or choose --device cpu.")
        warnings.warn(f"{problem}. {path.name} runs on {used}.", stacklevel=5)
    return session, used


def _devices(there, named):
    """Names the devices that onnxruntime has, the quickest first; or the one that is named."""
    known = [name for name, provider in PROVIDERS.items() if provider in there]
    if named and named not in known:
        raise ValueError(
            f"device is {named!r}; the onnxruntime that is installed has {', '.join(known)}. cuda "
            "is in the package onnxruntime-gpu, directml in onnxruntime-directml, coreml in "
            "onnxruntime on a Mac."
        )
    return [named] if named else known


def _open_tflite(path, name):
    interpreter = _interpreter(path)
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    is_quantised = entry["quantization"][0] > 0

    def answer(batch):
        if is_quantised:
            batch = _quantise(batch, entry)
        interpreter.resize_tensor_input(entry["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], batch)
        interpreter.invoke()
        values = interpreter.get_tensor(output["index"])
        scale, zero = output["quantization"]
        return (values.astype("float32") - zero) * scale if scale else values

    return Classifier(
        name=name,
        run=answer,
        dtype="float32" if is_quantised else np.dtype(entry["dtype"]).name,
        **_layout(entry["shape_signature"].tolist(), name),
        **_carded(zoo.read_card(path)),
    )


def _interpreter(path):
    """Opens a TFLite file."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    try:
        if not files.check(path) and not _survives(path):
            raise RuntimeError("it ends the process")
        with warnings.catch_warnings(action="ignore"):  # TensorFlow's, of its own future
            interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: TFLite cannot read it. Get it again.") from error
    return interpreter


_TRIED = """\
import sys
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tensorflow.lite.python.interpreter import Interpreter
model = Interpreter(sys.argv[1])
model.allocate_tensors()
model.invoke()"""


def _survives(path: Path) -> bool:
    """Tries a TFLite file in a process of its own, which one that is cut off ends with a signal."""
    command = [sys.executable, "-c", _TRIED, str(path)]
    return not subprocess.run(command, capture_output=True).returncode


def _quantise(values, entry):
    """Turns float32 into the whole numbers that a quantised TFLite input stands for."""
    scale, zero = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    return np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(entry["dtype"])
