"""Grey faces drawn from parameters: they are used where there is no data.

An emotion is the shape of brows, eyes, nose and mouth alone. Head, hair, glasses, pose, light,
contrast and noise are drawn from the same ranges for all seven, so that neither the mean of a
picture nor one pixel tells them apart.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ferlib.faces import FERData
from ferlib.labels import EMOTIONS, FERPLUS, SIDE, ferplus_labels

_SUPERSAMPLING = 4

# From and to, in hundredths of half the width of a head. A positive tilt lifts the inner ends of
# the brows, a positive curve the corners of the mouth; a sneer lifts the upper lip.
# brow lift    brow tilt   eye open  mouth width  mouth curve  mouth open  sneer
_SHAPES = {
    "angry": ((-15, -7), (-20, -10), (5, 12), (26, 42), (-16, -2), (-6, 14), (0, 0)),
    "disgust": ((-14, -3), (-12, 0), (3, 9), (26, 40), (-20, -6), (-4, 10), (10, 18)),
    "fear": ((4, 14), (7, 18), (15, 23), (32, 48), (-20, -6), (6, 20), (0, 0)),
    "happy": ((-3, 8), (-4, 4), (5, 14), (36, 54), (10, 24), (-6, 24), (0, 0)),
    "sad": ((-6, 6), (9, 22), (4, 12), (24, 38), (-22, -7), (-8, 5), (0, 0)),
    "surprise": ((10, 24), (-5, 5), (15, 24), (15, 26), (-6, 4), (20, 42), (0, 0)),
    "neutral": ((-4, 6), (-4, 5), (8, 15), (26, 42), (-5, 6), (-8, 2), (0, 0)),
}
SKIN: dict[str, Any] = {"black": "#1f120d", "mid": "#b97a57", "white": "#fdf1e4", "midpoint": 120}
"""What gives a drawn face colour, for Pillow's `ImageOps.colorize`."""
# Who plays in clips, and what.
_PLAYS = {
    1: ("happy", "angry", "surprise", "neutral"),
    2: ("sad", "happy", "angry", "neutral"),
}
# In clips the mouth is open and the eyes are wide for certain.
_CLEAR = {"surprise": ((17, 24), (-5, 5), (20, 24), (15, 26), (-6, 4), (38, 48), (0, 0))}
_WALL = 90  # behind them
_T = np.linspace(-1, 1, 13)
_COS, _SIN = np.cos(np.pi * np.linspace(-1, 1, 25)), np.sin(np.pi * np.linspace(-1, 1, 25))


def draw(n: int = 2800, *, seed: int = 0, size: int = SIDE) -> FERData:
    """Draws faces with balanced labels, split 70/15/15 into train, val and test.

    They have what FER2013 has: votes of ten people, and from 210 faces on exact copies, of which
    some have another label and some lie in val or test.

    Args:
        n: How many faces, at least 21 (one of each label in each split).
        seed: Seed of everything that is random in the faces.
        size: Width and height in pixels; the models take 48.

    Returns:
        The faces in the order train, val, test; the images are uint8 [n, size, size].

    Raises:
        ValueError: If `n` is less than 21.

    Example:
        >>> faces = draw(70, seed=1)
        >>> faces.images.shape, faces.votes.shape
        ((70, 48, 48), (70, 10))
    """
    kinds = len(EMOTIONS)
    if n < 3 * kinds:
        raise ValueError(f"n is {n}: ask for at least {3 * kinds} faces, one a label and split.")
    rng = np.random.default_rng(seed)
    rounds = -(-n // kinds)
    labels = np.concatenate([rng.permutation(kinds) for _ in range(rounds)])[-n:]
    held = kinds * max(1, round(0.15 * n / kinds))
    images = np.stack([_face(EMOTIONS[label], rng, size) for label in labels])
    people = np.random.default_rng([seed, 1])
    _copy_some(images, labels, n - 2 * held, people)
    return FERData(
        images=images,
        labels=labels.astype(np.int64),
        split=np.repeat(["train", "val", "test"], [n - 2 * held, held, held]),
        votes=_votes(labels, people),
        names=np.array([f"face {row}" for row in range(n)]),
        origin=f"drawn faces (seed {seed})",
        title="drawn faces",
    )


def person(seed: int, emotion: str, *, size: int = SIDE) -> np.ndarray:
    """Draws one face; one seed is one person, whatever the emotion.

    Args:
        seed: The person.
        emotion: One of `labels.EMOTIONS`.
        size: Width and height in pixels.

    Returns:
        uint8 [size, size].
    """
    return _face(emotion, np.random.default_rng(seed), size)


def clip(
    seconds: float = 8, *, rate: float = 25, seed: int = 0
) -> Iterator[tuple[np.ndarray, list[tuple]]]:
    """Draws a clip whose answer is known: two persons move and change their emotion.

    The second comes after a second, leaves for a second in every four and comes back.

    Args:
        seconds: Its length.
        rate: Frames a second.
        seed: Who the two are.

    Yields:
        A frame, uint8 [480, 640, 3] (RGB), and who is in it: (person, box, emotion), with the box
        (left, top, width, height) in pixels.

    Example:
        >>> picture, persons = next(clip())
        >>> picture.shape, persons
        ((480, 640, 3), [(1, (20, 140, 192, 192), 'happy')])
    """
    from PIL import Image, ImageOps

    side, height, width = 192, 480, 640
    faces = {
        (who, emotion): _actor(emotion, np.random.default_rng([seed, who]), side)
        for who, emotions in _PLAYS.items()
        for emotion in emotions
    }
    for time in np.arange(round(seconds * rate)) / rate:
        frame = np.full((height, width), _WALL, np.uint8)
        persons = []
        for who, emotions in _PLAYS.items():
            emotion = emotions[int(time / 2 + 0.5 * (who - 1)) % len(emotions)]
            left = 20 + round(80 * (1 - np.cos(time)) / 2)
            top = 140 + round(60 * np.sin(0.7 * time))
            if who == 2:  # beyond the right border in the first of every four seconds
                phase = time % 4
                away = np.clip(max(1 - phase, phase - 3.5) / 0.5, 0, 1)
                left, top = round(400 + 40 * np.sin(time) + 260 * away), 130
            shown = min(side, width - left)
            if shown > 0:
                frame[top : top + side, left : left + shown] = faces[who, emotion][:, :shown]
            if shown > 0.8 * side:
                persons.append((who, (left, top, side, side), emotion))
        yield np.array(ImageOps.colorize(Image.fromarray(frame), **SKIN)), persons


def _actor(emotion: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a head before the wall that a detector of real faces takes for one.

    All of it is near the middle of what `draw` draws, so that there is no hand and there are no
    glasses; it is lighter than the wall, whole, and has shade around the eyes.
    """
    from PIL import Image, ImageFilter

    def u(low: Any = 0.0, high: Any = 1.0):
        middle = np.add(low, high) / 2
        return middle + 0.4 * (rng.uniform(low, high) - middle)

    image = Image.new("L", (2 * size, 2 * size), _WALL)
    pen = _Pen(image, u)
    pen.scale *= 0.8
    skin, hair = rng.uniform(170, 215), rng.uniform(10, 70)
    shape = u(*np.transpose((_SHAPES | _CLEAR)[emotion]) / 100)
    _head(pen, u, skin, hair)
    for x in (-0.44, 0.44):
        pen(x + 0.34 * _COS, 0.22 * _SIN - 0.2, 0.7 * skin)
    _eyes(pen, u, skin, 0.2 * skin, 0.7 * hair, *shape[:3])
    _nose_and_mouth(pen, u, skin, 0.2 * skin, *shape[3:])
    image = image.filter(ImageFilter.GaussianBlur(size / 100))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def _copy_some(images: np.ndarray, labels: np.ndarray, train: int, rng: np.random.Generator):
    """Replaces 1 in 70 faces by a copy of another: half in train, half of train in val and test."""
    n = len(images)
    copies = n // 210
    places = [*rng.choice(np.arange(train // 2, train), 2 * copies, replace=False)]
    places += [*rng.choice(np.arange(train, n), copies, replace=False)]
    for i, place in enumerate(places):
        conflicting = i < copies
        alike = (labels[: train // 2] == labels[place]) != conflicting
        images[place] = images[rng.choice(np.flatnonzero(alike))]


def _votes(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lets ten people vote: 7 of 10 for the label, one for neutral, others for anything."""
    shares = np.full((len(labels), len(FERPLUS)), 0.02)
    shares[:, FERPLUS.index("neutral")] += 0.1
    column_of = {label: column for column, label in enumerate(ferplus_labels(EMOTIONS))}
    shares[np.arange(len(labels)), [column_of[label] for label in labels]] += 0.7
    return rng.multinomial(10, shares).astype(np.float32)


class _Pen:
    """Draws in units of half a head's width from its centre, x to the right and y down."""

    def __init__(self, image: Any, u: Callable[..., Any]):
        from PIL import ImageDraw

        self.draw = ImageDraw.Draw(image)
        self.centre = image.width * (u(0.44, 0.56) + 1j * u(0.44, 0.56))
        self.scale = image.width * u(0.37, 0.45)
        self.roll = np.exp(1j * np.deg2rad(u(-12, 12)))
        self.turn = u(-0.2, 0.2) + 1j * u(-0.1, 0.1)

    def __call__(self, x: Any, y: Any, tone: float, *, width: float | None = None):
        """Draws a line of a width through points, or fills their outline where there is none."""
        x, y = np.asarray(x), np.asarray(y)
        near = (1 - np.clip(x, -1, 1) ** 2) * (1 - np.clip(y / 1.3, -1, 1) ** 2)
        z = (x + 1j * y + near * self.turn) * self.roll * self.scale + self.centre
        points = list(zip(z.real.tolist(), z.imag.tolist(), strict=True))
        if width is None:
            self.draw.polygon(points, fill=int(tone))
        else:
            self.draw.line(points, int(tone), max(1, round(width * self.scale)), joint="curve")


def _face(emotion: str, rng: np.random.Generator, size: int):
    """Draws one face, uint8 [size, size]."""
    from PIL import Image

    u = rng.uniform
    image = Image.new("L", (size * _SUPERSAMPLING, size * _SUPERSAMPLING), int(u(0, 255)))
    pen, shape = _Pen(image, u), u(*np.transpose(_SHAPES[emotion]) / 100)
    skin, hair = u(95, 225), u(5, 215)
    dark, brow = skin * u(0.1, 0.4), min(hair, skin * 0.55) * u(0.4, 1)
    _head(pen, u, skin, hair)
    _eyes(pen, u, skin, dark, brow, *shape[:3])
    _nose_and_mouth(pen, u, skin, dark, *shape[3:])
    if u() < 0.12:  # a hand
        pen(u(-1, 1) + 0.45 * _COS, u(0.9, 1.3) + 0.5 * _SIN, u(20, 235))
    return _light(np.asarray(image.resize((size, size), Image.Resampling.BOX), float), rng)


def _head(pen: _Pen, u: Callable[..., Any], skin: float, hair: float):
    tall, jaw = u(1.15, 1.35), u(0, 0.25)
    wide = _COS * (1 - jaw * np.maximum(_SIN, 0))
    if u() < 0.4:  # long hair
        pen(1.2 * _COS, 1.35 * tall * _SIN, hair)
    pen((-0.4, 0.4, 0.5, -0.5), (0.9, 0.9, 2.5, 2.5), skin * 0.8)
    pen(1.04 * wide, tall * _SIN, skin * 0.75)
    pen(wide, 0.97 * tall * _SIN, skin)
    if u() < 0.8:  # hair down to a fringe
        line, fringe = u(0.75, 1.0), u(-0.15, 0.2) * (1 - _T**2)
        arc = np.linspace(start := np.arcsin(line / (1.08 * tall)), np.pi - start, len(_T))
        x = np.append(1.06 * np.cos(arc), 1.06 * np.cos(start) * _T)
        pen(x, np.append(-1.08 * tall * np.sin(arc), fringe - line), hair)


def _eyes(pen, u, skin, dark, brow, lift, tilt, opening):
    y, apart, wide, glasses = u(-0.25, -0.1), u(0.38, 0.5), u(0.18, 0.25), u() < 0.15
    white, look, thick = skin + u(0.3, 0.9) * (255 - skin), u(-0.1, 0.1), u(0.05, 0.12)
    iris, lid = 0.13 * _COS + look, opening * (1 - _T**2)
    over = opening * np.clip(1 - (iris / wide) ** 2, 0, 1)
    for x in (-apart, apart):
        pen(x + wide * np.append(_T, -_T), y + np.append(-lid, 0.7 * lid), white)
        pen(x + iris, y + np.clip(0.13 * _SIN - 0.02, -over, 0.7 * over), dark * 0.6)
        pen(x + wide * _T, y - lid, dark, width=0.05)
        height = y - 0.3 - lift + x / apart * tilt * _T - 0.05 * (1 - _T**2)
        pen(x + 0.27 * _T, height, brow, width=thick)
        if glasses:
            pen(x + 0.3 * _COS, y + 0.02 + 0.27 * _SIN, dark * 0.8, width=0.04)


def _nose_and_mouth(pen, u, skin, dark, half, curve, opening, sneer):
    tip, shade, opening = u(0.2, 0.32), skin * u(0.6, 0.8), max(0.04, opening)
    y = tip + u(0.32, 0.42)
    pen((-0.13, -0.08, 0.08, 0.13), (tip - 0.04, tip, tip, tip - 0.04), shade, width=0.05)
    for side in (-1, 1) if sneer else ():
        pen((side * 0.05, side * 0.16), (tip - 0.27, tip - 0.17), shade, width=0.05)
        fold = side * np.array((0.16, 0.3, half + 0.08))
        pen(fold, (tip - 0.05, tip + 0.1, y + 0.1), shade, width=0.045)
    raised = sneer * np.exp(-(((_T - u(-0.5, 0.5)) / 0.5) ** 2))
    middle = y - curve * (_T**2 - 0.4)
    upper = middle - (0.35 * opening + raised) * (1 - _T**2)
    lower = middle + 0.65 * opening * np.sqrt(1 - _T**2)
    x, outline = half * np.append(_T, -_T), np.append(upper, lower[::-1])
    pen(x, outline, skin * u(0.5, 0.85), width=u(0.1, 0.18))
    pen(x, outline, dark * 0.7)
    if opening > 0.05 and u() < 0.7:  # teeth
        teeth = np.minimum(upper + 0.5 * opening, lower)
        pen(x, np.append(upper, teeth[::-1]), skin + 0.7 * (255 - skin))


def _light(picture: np.ndarray, rng: np.random.Generator):
    """Adds contrast, light from one side and noise."""
    grid, angle = np.linspace(-1, 1, len(picture)), rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.5) * (np.cos(angle) * grid + np.sin(angle) * grid[:, None])
    picture = (picture - 128) * rng.uniform(0.6, 1) + 128 + rng.uniform(-25, 25)
    picture = picture * (1 + slope) + rng.normal(0, rng.uniform(2, 10), picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
