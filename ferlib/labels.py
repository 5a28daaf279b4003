"""The emotions, how people spell and number them, and their colours."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's labels in FER2013's order; the classes of data that names no others."""

SIDE = 48
"""Side of a picture in pixels."""

FERPLUS = (
    "neutral", "happiness", "surprise", "sadness", "anger",
    "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
"""The columns of FER+'s votes, in the order of `fer2013new.csv` (NF is no face)."""

NUMBERINGS = {
    "fer2013": EMOTIONS,
    "rafdb": (None, "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
    "affectnet": (
        "neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt",
        None, None, None,
    ),
    "ferplus": (
        "neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt", None, None,
    ),
    "ck": ("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise"),
}  # fmt: skip
"""What a number means in each data set; None is no emotion, and such pictures are left out."""

PALETTE = {
    "angry": "#c1272d",
    "disgust": "#6a8f2f",
    "fear": "#7b4fa3",
    "happy": "#e8a317",
    "sad": "#2f6db5",
    "surprise": "#1aa3a3",
    "neutral": "#7a7a7a",
}
"""One fixed colour for each emotion, used by every figure."""

_OTHER_COLOURS = (
    "#8c564b", "#e377c2", "#111111", "#9edae5", "#bcbd22", "#1b3a6b",
    "#ff7f50", "#98df8a", "#d4b9da", "#5b3a1e", "#00b050", "#ff00aa",
)  # fmt: skip

_TAKEN = set("file frame seconds person left top width height score emotion model note".split())
_SPELLINGS = {
    "anger": "angry", "disgusted": "disgust", "afraid": "fear", "fearful": "fear",
    "scared": "fear", "happiness": "happy", "joy": "happy", "sadness": "sad",
    "surprised": "surprise", "suprise": "surprise", "calm": "neutral",
    "digust": "disgust", "suprised": "surprise", "netural": "neutral",
    "contemptuous": "contempt", "contempt": "contempt", **{name: name for name in EMOTIONS},
}  # fmt: skip


def canonical(name: str) -> str:
    """Gives an emotion its usual name, and any other label in lower case.

    Args:
        name: A label in any spelling and case, also with a number before it, "faces" after it,
            or anything in brackets, such as how many there are.

    Returns:
        One of `EMOTIONS`, "contempt", or the label in lower case without blanks around it.

    Example:
        >>> canonical("Happiness"), canonical("3_happy_faces"), canonical(" Bored ")
        ('happy', 'happy', 'bored')
    """
    name = name.strip().lower()
    alone = re.sub(r"^\d+[\W_]+|[\W_]+(faces?|images?|photos?|people)$|\s*\([^()]*\)$", "", name)
    return _SPELLINGS.get(alone, name)


def is_emotion(name: str) -> bool:
    """Returns whether a label is one of the seven emotions or contempt, in any spelling."""
    return canonical(name) in _SPELLINGS.values()


def ferplus_labels(classes: Sequence[str]) -> np.ndarray:
    """Gives for each column of FER+'s votes the label of its class.

    Args:
        classes: Names of the classes, in any spelling.

    Returns:
        int [10]; -1 where no class is the column's.

    Example:
        >>> ferplus_labels(["happy", "neutral", "bored"])
        array([ 1,  0, -1, -1, -1, -1, -1, -1, -1, -1])
    """
    at = {canonical(name): label for label, name in enumerate(classes)}
    return np.array([at.get(canonical(name), -1) for name in FERPLUS])


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Orders classes: FER2013's in FER2013's order, then others by the alphabet."""
    names = set(names)
    others = sorted(names.difference(EMOTIONS))
    return (*(name for name in EMOTIONS if name in names), *others)


def numbering(name: str) -> dict[str, str | None]:
    """Returns what each number, as text, means in a data set of `NUMBERINGS`."""
    return {str(i): label for i, label in enumerate(NUMBERINGS[name]) if (name, i) != ("rafdb", 0)}


def mapping(option: str | Path | Mapping | None) -> dict[str, str | None]:
    """Reads what a user says that labels mean.

    Args:
        option: A name in `NUMBERINGS`, a dict from old name to class, a JSON file with such a
            dict, or None. A class of None (null) leaves the pictures of that label out.

    Returns:
        Old name -> class, or None where it is left out.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> mapping("rafdb")["1"]
        'surprise'
        >>> mapping({"Angry": "negative", "disgust": "negative", "neutral": None})["angry"]
        'negative'
    """
    if option is None:
        return {}
    if isinstance(option, str) and option.lower() in NUMBERINGS:
        return numbering(option.lower())
    if not isinstance(option, Mapping):
        try:
            option = json.loads(Path(option).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"labels: {option!r} is no numbering ({', '.join(NUMBERINGS)}) and no JSON file "
                f'such as {{"angry": "negative", "neutral": null}} ({error}).'
            ) from error
    names = [*option.values()] if isinstance(option, Mapping) else []
    fit = [name is None or (isinstance(name, str) and name.strip()) for name in names]
    if not fit or not all(fit):
        raise ValueError('labels: wanted is old name to class, as {"0": "bored", "1": null}.')
    return {canonical(str(old)): new and new.strip() for old, new in option.items()}


def colours(classes: Iterable[str]) -> dict[str, str]:
    """Gives each class a fixed colour, in the order of the classes.

    Args:
        classes: Names of classes.

    Returns:
        Name -> colour such as "#c1272d": that of `PALETTE` for an emotion, else the next of
        twelve others.

    Example:
        >>> colours(["happy", "bored"])
        {'happy': '#e8a317', 'bored': '#8c564b'}
    """
    others = itertools.cycle(_OTHER_COLOURS)
    return {name: PALETTE[name] if name in PALETTE else next(others) for name in classes}


def answer_columns(classes: Iterable[str]) -> list[str]:
    """Names the columns of the classes' probabilities in a table of predictions.

    Args:
        classes: Names of classes.

    Returns:
        A name for each: the class's own, or "left (probability)" where a table of predictions has
        a column "left" that says something else.

    Example:
        >>> answer_columns(["happy", "left"])
        ['happy', 'left (probability)']
    """
    return [f"{name} (probability)" if name in _TAKEN else name for name in classes]
