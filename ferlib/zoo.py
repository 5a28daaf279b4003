"""Trained models: how they are saved, found by name, loaded, and what they say of themselves."""

import io
import json
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from ferlib.backend import keras
from ferlib.labels import EMOTIONS, SIDE

layers = keras.layers

PRETRAINED = pathlib.Path(__file__).parent / "pretrained"
_NEWER = dict.fromkeys(("input_axes", "output_axes", "quantization_config", "renorm_clipping"))
_NEWER |= {"renorm": False, "renorm_momentum": 0.99}
_CARD, _SEEN = "ferlib/card.json", "ferlib/seen.npy"


def average(members) -> keras.Model:
    """Puts trained models together into one that gives the mean of their probabilities.

    Args:
        members: Models, files or shipped names.

    Returns:
        The model, with the members inside.
    """
    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    answers = []
    for number, member in enumerate(members):
        trained = load(member)
        copy = type(trained).from_config(trained.get_config() | {"name": f"member_{number}"})
        copy.set_weights(trained.get_weights())
        answers.append(copy(images))
    return keras.Model(images, layers.Average(name="probabilities")(answers), name="ensemble")


def members(model: keras.Model) -> list[keras.Model]:
    """Takes apart what `average` put together; any other model is its own only member."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    made = isinstance(model.layers[-1], layers.Average) and len(inner) == len(model.layers) - 2
    return inner if made else [model]


def save(model: keras.Model, path, *, card: dict | None = None, seen=None, half=False):
    """Saves a model as one `.keras` file that also says where it comes from.

    The file is Keras's own format with two members more, which Keras passes over. It appears
    whole or not at all.

    Args:
        model: The model.
        path: Where to write; must end in `.keras`.
        card: What is known of the model, as JSON would hold it.
        seen: uint64 [N], `cleaning.picture_hashes` of the pictures it was trained on.
        half: Whether weights are stored as float16, in half the space.

    Returns:
        The path written.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        whole = pathlib.Path(folder) / "model.keras"
        model.save(whole)
        whole = _copy(whole, half)
        with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_CARD, json.dumps(card or {}, indent=1))
            if seen is not None:
                buffer = io.BytesIO()
                np.save(buffer, np.sort(np.asarray(seen, dtype="uint64")))
                archive.writestr(_SEEN, buffer.getvalue())
        os.replace(whole, path)
    return path


def _copy(path, half):
    """Copies a `.keras` file so that older Keras can read it, or with weights cast to float16."""
    import h5py

    out = path.with_name("copy.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            data = old.read(member)
            if member == "config.json":
                data = json.dumps(json.loads(data, object_hook=_known)).encode()
            elif half and member.endswith(".h5"):
                buffer = io.BytesIO()
                with h5py.File(io.BytesIO(data)) as source, h5py.File(buffer, "w") as copy:
                    source.visititems(lambda name, item: _copy_half(copy, name, item))
                    for key, value in source.attrs.items():
                        copy.attrs[key] = value
                data = buffer.getvalue()
            new.writestr(member, data)
    return out


def _known(config):
    """Drops options that Keras 3.11 does not know, where they are at their defaults."""
    return {k: v for k, v in config.items() if k not in _NEWER or v != _NEWER[k]}


def _copy_half(copy, name, item):
    if hasattr(item, "shape"):
        value = item[()]
        made = copy.create_dataset(name, data=value.astype("f2") if value.dtype == "f4" else value)
    else:
        made = copy.require_group(name)
    for key, value in item.attrs.items():
        made.attrs[key] = value


def shipped() -> tuple[str, ...]:
    """Names the trained models that come with ferlib."""
    return tuple(sorted(path.stem for path in PRETRAINED.glob("*.keras")))


def find(model) -> pathlib.Path:
    """Finds the file of a model.

    Args:
        model: A path, or the name of a shipped model.

    Returns:
        The path.

    Raises:
        FileNotFoundError: If there is neither such a file nor such a shipped model.
    """
    path = pathlib.Path(model)
    if path.suffix not in (".keras", ".h5") and str(model) in shipped():
        return PRETRAINED / f"{model}.keras"
    if not path.is_file():
        card = PRETRAINED / f"{path.name}.json"
        if card.is_file() and path.name == str(model):
            raise FileNotFoundError(
                f"The weights of {model} are not in {PRETRAINED}. {card.name} there says what it "
                f"was made of; `python experiments/ship.py {model} RUN ...` makes it again."
            )
        names = ", ".join(shipped()) or "none yet"
        raise FileNotFoundError(
            f"No model {str(model)!r}: give a .keras or .h5 file, or a shipped name ({names})."
        )
    return path


def load(model) -> keras.Model:
    """Loads a model in safe mode: a file that would run code of its own is refused.

    Args:
        model: A path (`.keras`, or an older `.h5`), the name of a shipped model, or a model,
            which is given back as it is.

    Returns:
        The model, not compiled.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the file cannot be loaded safely, or is no classifier of 48x48 grey
            pictures into seven emotions.
    """
    if isinstance(model, keras.Model):
        return model
    path = find(model)
    try:
        loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
        shapes = loaded.input_shape, loaded.output_shape
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded safely: {str(error).strip().splitlines()[0]} "
            "Only files made of Keras's own layers are taken; code in a model file is never run."
        ) from error
    if shapes != ((None, SIDE, SIDE, 1), (None, len(EMOTIONS))):
        raise ValueError(
            f"{path} maps {shapes[0]} to {shapes[1]}; ferlib's models map (None, 48, 48, 1) to "
            "(None, 7). Put resizing and channels inside the model."
        )
    return loaded


def read_card(model) -> dict:
    """Reads what a model file says of itself; empty for a file that ferlib did not write."""
    data = _member(model, _CARD)
    return json.loads(data) if data else {}


def read_seen(model):
    """Reads the hashes of the pictures that a model was trained on.

    Returns:
        uint64 [N], sorted, or None where the file does not say.
    """
    data = _member(model, _SEEN)
    return np.load(io.BytesIO(data), allow_pickle=False) if data else None


def _member(model, name):
    path = find(model)
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name) if name in archive.namelist() else None
