"""The seven emotions of FER2013, the votes of FER+, and how people spell them."""

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's labels; the index of an emotion is its label, everywhere."""

SIDE = 48
"""Side of a picture in pixels."""

FERPLUS = (
    "neutral", "happiness", "surprise", "sadness", "anger",
    "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
"""The columns of FER+'s votes, in the order of `fer2013new.csv` (NF: no face)."""

FERPLUS_TO_LABEL = {0: 6, 1: 3, 2: 5, 3: 4, 4: 0, 5: 1, 6: 2}
"""FER+ column -> FER2013 label; contempt, unknown and NF have none."""

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

_SPELLINGS = {
    "anger": 0, "disgusted": 1, "afraid": 2, "fearful": 2, "scared": 2, "happiness": 3, "joy": 3,
    "sadness": 4, "surprised": 5, "suprise": 5, "calm": 6,
}  # fmt: skip
_SPELLINGS |= {emotion: label for label, emotion in enumerate(EMOTIONS)}
_SPELLINGS |= {str(label): label for label in range(len(EMOTIONS))}


def label_index(name) -> int:
    """Gives the FER2013 label of an emotion's name.

    Args:
        name: The name in a usual spelling and any case ("Happy", "happiness", "3"), or the
            label itself.

    Returns:
        The label, 0 to 6.

    Raises:
        ValueError: If the name is none of the seven emotions.
    """
    key = str(name).strip().lower()
    if key not in _SPELLINGS:
        known = ", ".join(f"{label} {emotion}" for label, emotion in enumerate(EMOTIONS))
        raise ValueError(f"{name!r} is not an emotion of FER2013; known are {known}.")
    return _SPELLINGS[key]
