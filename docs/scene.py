"""Draws the scene of the front page: five people in a room, named by a model.

`python docs/scene.py MODEL` writes `docs/figures/scene.jpg`. The people are ferlib's drawn faces,
in colour; MODEL has learned drawn faces, as `runs/book/03_cnn_training/compact/model.keras` has.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from ferlib import drawn, prediction

OUT = Path(__file__).parent / "figures/scene.jpg"
SIZE = (1200, 480)
CLOTHES = ("#35608f", "#8c3b4a", "#3f7d6b", "#b0813a", "#5d4f8a")
PEOPLE = ("happy", "surprise", "neutral", "sad", "angry")


def head(emotion: str, seed: int, side: int) -> Image.Image:
    """Draws a head of an emotion on nothing, RGBA [side, side], in the middle of its square."""
    grounds = []
    for ground in (0, 255):  # where both are alike, there is a head
        rng = np.random.default_rng(seed)
        image = Image.new("L", (2 * side, 2 * side), ground)
        pen = drawn._Pen(image, rng.uniform)
        pen.scale, pen.centre = 0.6 * pen.scale, side * (1 + 0.95j)
        shape = rng.uniform(*np.transpose(drawn._SHAPES[emotion]) / 100)
        skin, hair = rng.uniform(120, 205), rng.uniform(15, 110)
        dark = skin * rng.uniform(0.1, 0.35)
        drawn._head(pen, rng.uniform, skin, hair)
        drawn._eyes(pen, rng.uniform, skin, dark, hair * 0.7, *shape[:3])
        drawn._nose_and_mouth(pen, rng.uniform, skin, dark, *shape[3:])
        grounds.append(image)
    alike = np.asarray(grounds[0]) == np.asarray(grounds[1])
    coloured = ImageOps.colorize(grounds[0], **drawn.SKIN)
    coloured.putalpha(Image.fromarray(np.uint8(255 * alike)))
    return coloured.resize((side, side), Image.Resampling.BOX)


def room(rng: np.random.Generator) -> Image.Image:
    """Draws a room with a window and the light that falls through it."""
    width, height = SIZE
    down = np.linspace(0, 1, height)[:, None, None]
    across = np.linspace(0, 1, width)[None, :, None]
    wall = np.array([206, 196, 182]) * (1.05 - 0.25 * across - 0.15 * down)
    picture = Image.fromarray(np.uint8(np.clip(wall, 0, 255)))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((90, -20, 380, 230), "#f4efe6")
    for left in (102, 242):
        pen.rectangle((left, -20, left + 126, 218), "#b9d4e8")
        pen.pieslice((left, 140, left + 126, 320), 180, 360, "#8fae86")
    pen.rectangle((60, 218, 410, 240), "#efe8dc")
    pen.rectangle((0, 235, 60, height), "#f0e9dd")
    pen.rectangle((700, 20, 860, 130), "#6b4f3a")
    pen.rectangle((712, 32, 848, 118), "#d8cfa8")
    pen.polygon(((712, 118), (764, 52), (800, 92), (818, 74), (848, 118)), "#7c9a8c")
    return picture.filter(ImageFilter.GaussianBlur(2.5))


def scene(seed: int = 21) -> Image.Image:
    """Draws the people into the room, RGB."""
    rng = np.random.default_rng(seed)
    picture = room(rng)
    side, step = 250, SIZE[0] / len(PEOPLE)
    for place, (emotion, cloth) in enumerate(zip(PEOPLE, CLOTHES, strict=True)):
        x = round(step * (place + 0.5) + rng.uniform(-12, 12))
        y = round(225 + rng.uniform(-30, 35))
        face = head(emotion, seed * 100 + place, side)
        picture.paste(face, (x - side // 2, y - side // 2), face)
        body = Image.new("L", SIZE)  # a mask: a pullover with a round neck
        pen = ImageDraw.Draw(body)
        pen.ellipse((x - 118, y + 88, x + 118, y + 420), 255)
        pen.ellipse((x - 48, y + 56, x + 48, y + 112), 0)
        picture.paste(cloth, (0, 0), body.filter(ImageFilter.GaussianBlur(1)))
    pixels = np.asarray(picture, float) + rng.normal(0, 4, (SIZE[1], SIZE[0], 1))
    return Image.fromarray(np.uint8(np.clip(pixels, 0, 255)))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("model", metavar="MODEL", help="- draws the people without naming them")
    arguments.add_argument("seed", metavar="SEED", nargs="?", type=int, default=21)
    args = arguments.parse_args()
    picture = scene(args.seed)
    if args.model != "-":
        found = prediction.predict(picture, model=args.model, detect=True)
        print(found.to_frame().round(3).to_string())
        picture = found.draw()
    OUT.parent.mkdir(exist_ok=True)
    picture.save(OUT, quality=88)
