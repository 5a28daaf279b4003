"""Measures the seconds of a one-minute clip, 640x480 and one face, by stage.

    python tests/benchmarks/bench_clips.py [--seconds 60 --models tiny compact]

Stages: read (OpenCV), detect (MTCNN, five times a second), follow (optical flow between),
classify, write (the csv), and film (all of it for a clip with its faces framed, extra `video`).
A stage is timed where it is called, in one run of `prediction.predict_to_csv`. With `--detectors
PHOTO ...` also the time and the number of faces of MTCNN as graphs, as mtcnn runs it, and of
OpenCV's cascades.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from ferlib import clips, detection, drawn, prediction


def one_face(path: Path, seconds: float) -> Path:
    """Writes a drawn clip in which the second person is covered."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    for picture, _ in drawn.clip(seconds):
        picture[:, 320:] = picture[0, 0]
        writer.write(picture[..., ::-1])
    writer.release()
    return path


def timed(seconds: Counter, stage: str, function):
    """Adds the time that a function takes to a stage."""

    def run(*args, **options):
        start = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[stage] += time.perf_counter() - start

    return run


def measure(path: Path, model: str, folder: Path) -> dict:
    """Predicts a clip once and gives the seconds of its stages."""
    seconds: Counter = Counter()
    opened = prediction.open_classifier(model)
    whole = clips.frames

    def frames(*args, **options):
        found = whole(*args, **options)
        step = timed(seconds, "read", lambda: next(found, None))
        while (item := step()) is not None:
            number, at, picture = item
            yield number, at, timed(seconds, "read", picture)

    replaced = {
        (clips, "frames"): frames,
        (detection, "find"): timed(seconds, "detect", detection.find),
        (clips.Follower, "_move"): timed(seconds, "follow", clips.Follower._move),
        (prediction.runtimes.Classifier, "__call__"): timed(
            seconds, "classify", prediction.runtimes.Classifier.__call__
        ),
    }
    kept = {key: getattr(*key) for key in replaced}
    for key, function in replaced.items():
        setattr(*key, function)
    try:
        start = time.perf_counter()
        out = folder / f"{model}.csv"
        prediction.predict_to_csv(path, out, model=opened, progress=False)
        total = time.perf_counter() - start
    finally:
        for key, function in kept.items():
            setattr(*key, function)
    number = clips.about(path)[0]
    return {
        "model": model,
        "frames": number,
        **seconds,
        "write and the rest": total - sum(seconds.values()),
        "csv": total,
        "frames/s": number / total,
    }


def film(path: Path, model: str, folder: Path) -> float:
    """Gives the seconds of writing a clip with its faces framed."""
    start = time.perf_counter()
    prediction.predict_to_clip(path, folder / "faces.mp4", model=model, progress=False)
    return time.perf_counter() - start


def detectors(photos) -> pd.DataFrame:
    """Counts the faces that detectors find in photos, and their milliseconds."""
    from mtcnn import MTCNN

    plain = MTCNN()
    cascades = {
        name: cv2.CascadeClassifier(cv2.data.haarcascades + f"haarcascade_frontalface_{name}.xml")
        for name in ("default", "alt2")
    }
    found = {
        "MTCNN as graphs": lambda picture: detection.find(Image.fromarray(picture)),
        "MTCNN": lambda picture: plain.detect_faces(picture, output_type="numpy"),
    }
    for name, cascade in cascades.items():
        found[f"Haar {name}"] = lambda picture, cascade=cascade: cascade.detectMultiScale(
            cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 1.1, 3, minSize=(24, 24)
        )
    rows = []
    for photo in photos:
        picture = np.asarray(Image.open(photo).convert("RGB"))
        for name, find in found.items():
            find(picture)
            start = time.perf_counter()
            number = len(find(picture))
            taken = 1000 * (time.perf_counter() - start)
            rows.append({"photo": Path(photo).name, "by": name, "faces": number, "ms": taken})
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--models", nargs="*", default=["tiny", "compact"])
    parser.add_argument("--detectors", nargs="*", default=[], metavar="PHOTO")
    args = parser.parse_args()
    if args.detectors:
        print(detectors(args.detectors).round(0).to_string(index=False))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm = one_face(folder / "warm.mp4", 2)
        path = one_face(folder / "clip.mp4", args.seconds)
        rows = []
        for model in args.models:
            measure(warm, model, folder)  # the first call loads and traces
            (folder / f"{model}.csv").unlink()
            rows.append(measure(path, model, folder))
            if prediction.find_spec("imageio_ffmpeg"):
                rows[-1]["film"] = film(path, model, folder)
        print(pd.DataFrame(rows).round(2).T.to_string(header=False))


if __name__ == "__main__":
    main()
