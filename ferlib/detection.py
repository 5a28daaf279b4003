"""Faces in pictures: where they are, how they are cut out, and how they are marked."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ferlib import runtimes
from ferlib.labels import SIDE

CROP = 64
"""A picture with no side longer than this (pixels) is a face crop, not searched for faces."""
SMALLEST = 12
"""A picture with a side shorter than this (pixels) cannot show a face."""
SEARCHED = 1280
"""Faces are searched for in a copy whose longer side is at most this (pixels)."""
SURE = 0.8
"""A face has at least this score; a lower one may be one that was there before."""
BOX = ("left", "top", "width", "height")
"""Where a face is, in pixels of the upright picture."""


@lru_cache(maxsize=1)
def detector() -> Any:
    """Loads MTCNN once; its networks run as TensorFlow graphs, which is twice as fast.

    Raises:
        ImportError: If the extra `faces` is not installed.
    """
    runtimes.need("faces", "mtcnn", what="To find faces (detect=False takes a picture as one face)")
    import tensorflow as tf
    from mtcnn import MTCNN

    # On Python 3.13 lz4 flushes the file of weights that it has closed.
    with patch.object(sys, "unraisablehook", lambda _: None):
        found = MTCNN()
    for stage in found.stages:  # a graph for pictures of any size
        stage._model = tf.function(stage._model, reduce_retracing=True)
    return found


def find(picture: Image.Image, *, searched: int = SEARCHED, least: float = SURE) -> list[tuple]:
    """Finds the faces of a picture.

    MTCNN (Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded
    Convolutional Networks", arXiv:1604.02878) finds those of at least 20 pixels.

    Args:
        picture: The picture.
        searched: Faces are searched for in a copy whose longer side is at most this (pixels).
        least: Lowest score.

    Returns:
        The faces from left to right: (left, top, width, height, score), in pixels.

    Raises:
        ImportError: If the extra `faces` is not installed.
    """
    scale = max(1.0, max(picture.size) / searched)
    size = [max(1, round(side / scale)) for side in picture.size]
    copy = picture.convert("RGB").resize(size, reducing_gap=2)
    options = {"threshold_rnet": min(least, 0.7), "threshold_onet": least, "output_type": "numpy"}
    faces = detector().detect_faces(np.asarray(copy), **options)[:, 1:6].tolist()
    found = [(*(round(value * scale) for value in face[:4]), face[4]) for face in faces]
    return sorted(face for face in found if min(face[2:4]) > 0)


def crop(picture: Image.Image, left: float, top: float, width: float, height: float) -> np.ndarray:
    """Cuts a face out as FER2013 does, uint8 [48, 48]: a square around the box, in the picture.

    Of 490 FER2013 pictures in which MTCNN found one face, the picture's side was 0.95 times
    the box's height in the median (half of them 0.87 to 1.08), with the box in its middle.
    """
    side = min(max(width, height), *picture.size)
    left = min(max(left + (width - side) / 2, 0), picture.width - side)
    top = min(max(top + (height - side) / 2, 0), picture.height - side)
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box).convert("L"))


@lru_cache(maxsize=8)
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Gives Pillow's own font in a size, in pixels."""
    return ImageFont.load_default(size)


def mark(image: Image.Image, box: tuple, text: str, colour: str) -> None:
    """Frames a face in a picture and writes a text above it, or inside where there is no room.

    Args:
        image: The RGB picture, which is drawn into.
        box: Left, top, width and height in pixels.
        text: What to write.
        colour: The frame's and the text's background, such as "#c1272d".
    """
    pen, thick = ImageDraw.Draw(image), max(2, max(image.size) // 300)
    letters = font(max(14, max(image.size) / 45))
    left, top, width, height = box
    pen.rectangle((left, top, left + width - 1, top + height - 1), None, colour, thick)
    spot = (left, max(0, top - letters.getbbox(text)[3] - thick))
    pen.rectangle(pen.textbbox(spot, text, letters), colour)
    pen.text(spot, text, "white", letters)
