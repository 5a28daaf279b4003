"""Turns any picture into an upright one of 8 bits, and into a face as FER2013 has them."""

import functools
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferlib.labels import SIDE

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""What is opened, formats of photos, none that starts a program (as EPS does Ghostscript)."""


def read_picture(file: Any) -> np.ndarray:
    """Reads a picture of any size as FER2013 has them.

    Args:
        file: What `open_picture` takes.

    Returns:
        uint8 [48, 48], upright and grey.
    """
    return read_face(file)[0]


def read_face(file: Any, box: tuple[float, ...] | None = None) -> tuple[np.ndarray, bool]:
    """Reads a picture as `read_picture` does, and tells whether it was 48x48 and grey before.

    Args:
        file: What `open_picture` takes.
        box: Where the face is in it, as `tables.Row.box`.

    Returns:
        uint8 [48, 48], and whether it had that form.

    Raises:
        ValueError: If the box is empty or outside of the picture.
    """
    from PIL import Image

    picture = open_picture(file)
    if box:
        unit = picture.size * 2 if max(box) <= 1 else (1, 1, 1, 1)
        edges = [round(edge * length) for edge, length in zip(box, unit, strict=True)]
        left, top = max(0, edges[0]), max(0, edges[1])
        right, bottom = min(picture.width, edges[2]), min(picture.height, edges[3])
        if left >= right or top >= bottom:
            raise ValueError(f"its box {edges} is empty or outside of the picture")
        picture = picture.crop((left, top, right, bottom))
    whole = picture.mode == "L" and picture.size == (SIDE, SIDE)
    picture = picture.convert("L")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture), whole


@functools.cache
def formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that can be opened here; HEIF needs pillow-heif."""
    from PIL import Image

    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_picture(source: Any) -> "Image.Image":
    """Opens a picture of any kind as an upright one of 8 bits.

    EXIF rotation is applied, transparency put on white, and 16 bits are scaled to 8. Of an
    animation the first frame is taken.

    Args:
        source: A path, bytes, a binary file, a PIL picture, or an array [H, W], [H, W, 1],
            [H, W, 3] (RGB) or [H, W, 4] (RGBA). In an array, values above 255 mean 16 bits and
            fractions up to 1 mean 0 to 1.

    Returns:
        The PIL picture in mode "L" (grey) or "RGB".

    Raises:
        ValueError: If an array is not a picture. Pillow raises this and others for bad files.

    Example:
        >>> open_picture(np.zeros((20, 30, 3), np.uint8)).size
        (30, 20)
    """
    from PIL import Image, ImageOps

    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    if isinstance(source, (str, Path)) or hasattr(source, "read"):
        too_large = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
        with too_large, Image.open(source, formats=formats()) as image:
            return open_picture(image)
    if not isinstance(source, Image.Image):
        array = np.asarray(source)
        if array.ndim not in (2, 3):
            raise ValueError(f"{list(array.shape)} numbers are no picture")
        source = Image.fromarray(to_8_bits(array[..., 0] if array.shape[2:] == (1,) else array))
    image = ImageOps.exif_transpose(source)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return open_picture(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def to_8_bits(array: np.ndarray, *, most: int = 2**16 - 1) -> np.ndarray:
    """Gives numbers from 0 to 1, 255 or 65,535 as uint8; which of these shows in all of them.

    Raises:
        ValueError: If one is below 0 or above `most`.
    """
    low, high = array.min(initial=0), array.max(initial=0)
    if low < 0 or not high <= most:
        raise ValueError(f"numbers from {low} to {high} are no picture")
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and high <= 1):
        array = array * 255.0
    elif high > 255:
        array = array / 257
    return np.rint(array).astype(np.uint8)
