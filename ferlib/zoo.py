"""Trained models: how they are saved, found by name, loaded, and what they say of themselves."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferlib import archives, files
from ferlib.labels import EMOTIONS, SIDE

if TYPE_CHECKING:
    import keras

PRETRAINED = Path(__file__).parent / "pretrained"

CARD = "ferlib/card.json"
"""Where a model's file holds its card, in a zip."""
_SEEN = "ferlib/seen.npy"
_NEWER = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm_clipping": None,
    "renorm": False,
    "renorm_momentum": 0.99,
}
"""Options of layers that Keras 3.11 does not know, with their defaults."""


def average(members: Sequence[keras.Model | str | Path]) -> keras.Model:
    """Puts trained models together into one that gives the mean of their probabilities.

    Args:
        members: Models, files or shipped names, all with the same classes.

    Returns:
        The model, with the members inside.

    Example:
        >>> both = average(["tiny", "compact"])
        >>> len(members(both))
        2
    """
    from ferlib.backend import keras

    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    answers = []
    for number, trained in enumerate(map(load, members)):
        copy = type(trained).from_config(trained.get_config() | {"name": f"member_{number}"})
        copy.set_weights(trained.get_weights())
        answers.append(copy(images))
    mean = keras.layers.Average(name="probabilities")(answers)
    return keras.Model(images, mean, name="ensemble")


def members(model: keras.Model) -> list[keras.Model]:
    """Takes apart what `average` put together; any other model is its own only member."""
    from ferlib.backend import keras

    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    averaged = isinstance(model.layers[-1], keras.layers.Average)
    if averaged and len(inner) == len(model.layers) - 2:
        return inner
    return [model]


def save(
    model: keras.Model,
    path: str | Path,
    *,
    card: dict | None = None,
    seen: np.ndarray | None = None,
) -> Path:
    """Saves a model as one `.keras` file that also says where it comes from.

    The file is Keras's own format with two members more, which Keras passes over. It appears
    whole or not at all.

    Args:
        model: The model.
        path: Where to write; must end in `.keras`.
        card: What is known of the model, as JSON would hold it.
        seen: uint64 [N], `cleaning.picture_hashes` of the pictures it was trained on.

    Returns:
        The path written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(load("tiny"), Path(folder, "mine.keras"), card={"classes": EMOTIONS})
        ...     read_classes(path)[3]
        'happy'
    """
    path, made = Path(path), io.BytesIO()
    with files.whole(path) as unfinished:
        model.save(unfinished)
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            _copy(unfinished, archive)
            archive.writestr(CARD, json.dumps(card or {}, indent=1))
            if seen is not None:
                buffer = io.BytesIO()
                np.save(buffer, np.sort(np.asarray(seen, dtype="uint64")))
                archive.writestr(_SEEN, buffer.getvalue())
        unfinished.write_bytes(files.seal(made.getvalue()))
    return path


def _copy(path, archive):
    """Copies the members of a `.keras` file so that older Keras can read them."""
    with zipfile.ZipFile(path) as made:
        for name in made.namelist():
            data = made.read(name)
            if name == "config.json":
                data = json.dumps(json.loads(data, object_hook=_known)).encode()
            archive.writestr(name, data)


def _known(config):
    """Drops options that Keras 3.11 does not know, where they are at their defaults."""
    return {k: v for k, v in config.items() if k not in _NEWER or v != _NEWER[k]}


def shipped() -> tuple[str, ...]:
    """Names the trained models that come with ferlib.

    Example:
        >>> "compact" in shipped()
        True
    """
    return tuple(sorted(path.stem for path in PRETRAINED.glob("*.keras")))


def find(model: str | Path) -> Path:
    """Finds the file of a model.

    Args:
        model: A path, or the name of a shipped model.

    Returns:
        The path.

    Raises:
        FileNotFoundError: If there is neither such a file nor such a shipped model.

    Example:
        >>> find("tiny").name
        'tiny.keras'
    """
    name = str(model)
    if name in shipped():
        return PRETRAINED / f"{name}.keras"
    path = Path(model)
    if path.is_file():
        return path
    card = PRETRAINED / f"{path.name}.json"
    if name == path.name and card.is_file():
        raise FileNotFoundError(
            f"The weights of {name} are not in {PRETRAINED}. {card.name} there says what it was "
            f"made of; `python experiments/ship.py {name} RUN ...` makes it again."
        )
    names = ", ".join(shipped()) or "none yet"
    raise FileNotFoundError(
        f"No model {name!r}: give a model's file, such as runs/x/model.keras, or a shipped name "
        f"({names})."
    )


def load(model: keras.Model | str | Path) -> keras.Model:
    """Loads a model in safe mode: a file that would run code of its own is refused.

    Args:
        model: A path (`.keras`, or an older `.h5`), the name of a shipped model, or a model,
            which is given back as it is.

    Returns:
        The model, not compiled: uint8 [N, 48, 48, 1] in, float32 [N, classes] out.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the file is no Keras model, cannot be loaded safely, or is no classifier of
            48x48 grey pictures.

    Example:
        >>> load("tiny").output_shape
        (None, 7)
    """
    from ferlib.backend import keras

    if isinstance(model, keras.Model):
        return model
    path = find(model)
    loaded = read(path)
    shapes = loaded.input_shape, loaded.output_shape
    if shapes[0] != (None, SIDE, SIDE, 1) or len(shapes[1]) != 2:
        raise ValueError(
            f"{path} maps {shapes[0]} to {shapes[1]}; ferlib's models map "
            f"(None, {SIDE}, {SIDE}, 1) to (None, classes). Put resizing and channels inside the "
            "model."
        )
    return loaded


def read(path: Path) -> keras.Model:
    """Reads a Keras model of any input and output in safe mode.

    Raises:
        ValueError: If the file is no Keras model, or cannot be loaded safely.
    """
    from ferlib.backend import keras

    files.check(path)
    try:
        loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
        _ = loaded.input_shape, loaded.output_shape  # some have none
    except Exception as error:
        if getattr(error, "errno", None) in files.NO_ROOM:  # Keras unpacks the file there
            with files.naming(tempfile.gettempdir()):
                raise
        raise ValueError(f"{path} {_problem(path, error)}") from error
    return loaded


def _problem(path, error):
    """Says what a file is that Keras does not load, and what to do."""
    head = files.head(path)
    names, attributes = _inside(path)
    version = str(attributes.get("keras_version", ""))
    if head.startswith(b"\x80\2") or any(name.endswith("data.pkl") for name in names):
        return (
            "is a file of PyTorch, which holds no network that runs without its own Python code. "
            "Export it there with torch.onnx.export."
        )
    if "config.json" not in names and "model_config" not in attributes:
        is_hdf5 = head.startswith(b"\x89HDF")
        if is_hdf5 and names:
            return (
                "holds weights without their network: build that in Keras, call its load_weights "
                "and save it whole as a .keras file."
            )
        kind = archives.kind_of(head)
        what = kind if " " in kind and not is_hdf5 else "no Keras model, or it is damaged"
        return f"is {what}. Copy or download it again; ferlib reads .keras, .h5, .onnx and .tflite."
    reason = str(error).strip().splitlines()[0].split(". ")[0]
    if version.startswith(("1.", "2.")):
        return (
            f"was written by Keras {version}, and Keras 3 cannot read it ({reason}). Where it was "
            "made, export it to ONNX; or build its network in Keras 3 and call load_weights."
        )
    return (
        f"cannot be loaded safely: {reason}. Only files made of Keras's own layers are taken, and "
        "none with a Lambda layer: code in a model file is never run."
    )


def _inside(path):
    """Reads the names in a zip or in HDF5, and the attributes of the latter."""
    import h5py

    names, attributes = [], {}
    with contextlib.suppress(OSError):  # of a damaged file
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        elif h5py.is_hdf5(path):
            with h5py.File(path) as file:
                names = list(file)
                attributes = dict(file.attrs)
    return names, attributes


def read_card(model: str | Path) -> dict:
    """Reads what a model file says of itself; empty for a file that ferlib did not write.

    Example:
        >>> read_card("tiny")["recipe"]["model"]
        'vgg'
    """
    data = _member(model, CARD)
    return json.loads(data) if data else {}


def read_classes(model: keras.Model | str | Path) -> tuple[str, ...]:
    """Gives the names of the classes that a model answers with, in the order of its outputs.

    Args:
        model: A Keras model, a path, or the name of a shipped model.

    Returns:
        What the card says; without a card, the seven emotions where there are seven outputs, and
        "class 0", "class 1" and so on otherwise.

    Example:
        >>> read_classes("tiny")[:2]
        ('angry', 'disgust')
    """
    card = read_card(model) if isinstance(model, (str, Path)) else {}
    if card.get("classes"):
        return tuple(card["classes"])
    return unnamed(load(model).output_shape[-1])


def unnamed(outputs: int) -> tuple[str, ...]:
    """Gives the classes of a model that does not say them: the seven emotions, or numbers."""
    return EMOTIONS if outputs == len(EMOTIONS) else tuple(f"class {i}" for i in range(outputs))


def read_shares(model: str | Path, classes: Sequence[str]) -> tuple[float, ...]:
    """Reads each class's share of the data that a model was trained on.

    Args:
        model: A path, or the name of a shipped model.
        classes: Names of its classes, in the order of its outputs.

    Returns:
        A share for each class; empty where neither the file nor the card beside it says.

    Example:
        >>> shares = read_shares("tiny", EMOTIONS)
        >>> min(zip(shares, EMOTIONS))[1]
        'disgust'
    """
    path = find(model)
    card = read_card(path)
    beside = path.with_suffix(".json")
    if path.parent == PRETRAINED and beside.is_file():
        card = json.loads(beside.read_text(encoding="utf-8"))
    shares = card.get("data", {}).get("shares", {})
    return tuple(shares[name] for name in classes) if set(classes) <= set(shares) else ()


def read_seen(model: str | Path) -> np.ndarray | None:
    """Reads the hashes of the pictures that a model was trained on.

    Returns:
        uint64 [N], sorted, or None where the file does not say.

    Example:
        >>> len(read_seen("tiny")) > 20_000
        True
    """
    data = _member(model, _SEEN)
    return np.load(io.BytesIO(data), allow_pickle=False) if data else None


def _member(model, name):
    """Reads a member of a model's file; None where there is none."""
    path = find(model)
    files.check(path)
    if not zipfile.is_zipfile(path):
        if CARD.encode() in path.read_bytes():  # a zip, or its end in an export, that was cut off
            raise files.damaged(path)
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name) if name in archive.namelist() else None
    except archives.DAMAGED as error:
        raise files.damaged(path) from error
