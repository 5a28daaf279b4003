"""Clips and cameras: their frames one by one, and the persons in them followed over time.

Memory does not grow with a clip's length. `Watch` goes through a clip and can be stopped and
continued; `Live` takes frame after frame as they come from a camera.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ferlib import detection, files, labels, pictures, runtimes

SEARCHED = 640
"""Faces are searched for in a copy of a frame whose longer side is at most this (pixels)."""
SEARCH = 0.2
"""Faces are searched for this often (seconds), and where one is lost."""
GAP = 2.0
"""A face that is not found again is followed for this long (seconds), while it looks alike; who
comes back to nearly the same place within this time is the same person."""
ALIKE = 0.5
"""Least correlation of a face with how it looked when it was found last."""
UNSURE = 0.4
"""Lowest score of a face that is taken for a person who is known; a new one needs more."""
OVERLAP = 0.3
"""Boxes of one person overlap by at least this share of their union."""
WINDOW = 0.4
"""Probabilities are medians over this time (seconds), half of it before and half after a frame."""
LINE, COLUMN = 16, 200
"""Height of a line and width of a person's column in the strip under a frame (pixels)."""
LARGEST = 2**26
"""A frame of more pixels is not read."""
CUT = "breaks off"

_STILL = (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis",
)  # fmt: skip
_ANIMATED = ("GIF", "WEBP")
_COUNTS = ("last", "answered", "total", "seconds")  # how far a `Watch` is


# ---- frames ------------------------------------------------------------------------------


def is_clip(path: Path) -> bool:
    """Tells by its first bytes whether a file is a clip.

    Args:
        path: A regular file.

    Returns:
        Whether it is mp4, mov, avi, mkv, webm, MPEG, or an animated GIF or WebP. Playlists and
        scripts, which name other files or addresses, are none.
    """
    head = files.head(path)
    if _is_animation(head):
        # Whatever a damaged file makes Pillow raise; it is no clip.
        with suppress(Exception), Image.open(path, formats=_ANIMATED) as image:
            return getattr(image, "is_animated", False)
        return False
    boxes = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    return (
        (head[4:8] in boxes and head[8:12] not in _STILL)
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or head.startswith((b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3"))
        or (len(head) > 564 and head[0:565:188] == b"GGGG")  # a transport stream's packets
    )


def _is_animation(head: bytes) -> bool:
    return head.startswith(b"GIF8") or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


class Cut(ValueError):
    """A clip breaks off; its frames up to there were yielded."""


def _open(source: Path | int):
    """Opens a film, or a camera by its number, with OpenCV, which says nothing meanwhile."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    if isinstance(source, int):
        video = cv2.VideoCapture(source)
    else:
        video = cv2.VideoCapture(str(source.absolute()), cv2.CAP_FFMPEG)
    log.setLogLevel(level)
    if not video.isOpened():
        raise ValueError(
            f"There is no camera {source}, or another program uses it."
            if isinstance(source, int)
            else f"{source} is damaged, cut before its end, or has no pictures."
        )
    return video


def about(path: Path) -> tuple[int, float]:
    """Says what a clip claims of itself.

    Args:
        path: The clip.

    Returns:
        How many frames it has, and how many a second; 0 for what it does not say.
    """
    with suppress(Exception):  # what is damaged says nothing
        if _is_animation(files.head(path)):
            with Image.open(path, formats=_ANIMATED) as image:
                return getattr(image, "n_frames", 1), 1000 / (image.info.get("duration") or 100)
        video = _open(path)
        number, rate = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
        return max(0, int(number)), max(0.0, rate)
    return 0, 0.0


def frames(source: Path | int, *, every: float = 0) -> Iterator[tuple[int, float, Callable]]:
    """Yields the frames of a clip or a camera one by one.

    Args:
        source: The file, or a camera's number.
        every: Least time between two frames in seconds; 0 is all frames.

    Yields:
        The frame's number from 0, its time in seconds, and a function that gives its picture,
        uint8 [H, W, 3] (RGB), upright; to be called before the next frame.

    Raises:
        Cut: After the last frame of a clip that breaks off.
        ValueError: If nothing of it can be read.
    """
    is_animation = not isinstance(source, int) and _is_animation(files.head(source))
    last = -1
    for number, seconds, picture in (_animated if is_animation else _filmed)(source):
        step = math.floor(seconds / every + 1e-6) if every else number
        if step > last:
            last = step
            yield number, seconds, picture


def _filmed(source):
    video = _open(source)
    rate, expected = video.get(cv2.CAP_PROP_FPS) or 25.0, video.get(cv2.CAP_PROP_FRAME_COUNT)
    width, height = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    is_camera, start, seconds = isinstance(source, int), time.monotonic(), 0.0
    _check_size(source, int(width), int(height))
    for number in count():
        if not video.grab():
            break
        told = video.get(cv2.CAP_PROP_POS_MSEC) / 1000 or number / rate
        seconds = time.monotonic() - start if is_camera else max(seconds, told)
        yield number, seconds, lambda: cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
    if not number:
        raise ValueError(f"{source}: none of its frames can be read; it is damaged.")
    if expected - number > max(1, rate / 2):  # some claim a few frames too many
        raise Cut(f"it {CUT} after {number:,} of {expected:,.0f} frames")


def _animated(path):
    seconds = 0.0
    with Image.open(path, formats=_ANIMATED) as image:
        _check_size(path, *image.size)
        for number in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(number)
                picture = np.asarray(pictures.open_picture(image).convert("RGB"))
            except (OSError, EOFError, SyntaxError, ValueError) as error:
                kind = Cut if number else ValueError
                raise kind(f"it {CUT} after {number:,} frames ({error})") from error
            yield number, seconds, lambda picture=picture: picture
            seconds += (image.info.get("duration") or 100) / 1000


def _check_size(source, width, height):
    if width * height > LARGEST:
        raise ValueError(f"{source}: frames of {width}x{height} pixels are too large.")


# ---- persons -----------------------------------------------------------------------------


@dataclass
class Person:
    """A person in a frame.

    Args:
        number: The person's number in the clip, from 1.
        box: Left, top, width and height in pixels.
        score: The detector's, when the face was found last; NaN where nothing was searched for.
        probabilities: float64 [K], one a class.
    """

    number: int
    box: tuple[int, ...]
    score: float
    probabilities: np.ndarray


@dataclass
class Frame:
    """A frame of a clip and the persons in it.

    Args:
        number: The frame's number in the clip, from 0.
        seconds: Its time.
        persons: The persons, in the order in which they first came.
        picture: uint8 [H, W, 3] (RGB); None where it was not asked for.
    """

    number: int
    seconds: float
    persons: list[Person]
    picture: np.ndarray | None = None


@dataclass
class _Track:
    """A person on the way through a clip: box as floats, and when the face was found last.

    `look` is the face as it was then, grey, small and flat.
    """

    number: int
    box: list[float]
    score: float
    seen: float
    shown: bool = True
    look: list[float] | None = None


def overlap(one: Any, other: Any) -> float:
    """Gives the intersection of two boxes as a share of their union.

    Args:
        one: Left, top, width and height.
        other: The same of another box.

    Example:
        >>> overlap((0, 0, 10, 10), (0, 5, 10, 10))
        0.3333333333333333
    """
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


class Follower:
    """Finds persons in frames that come one after the other, and follows them.

    Faces are searched for every `SEARCH` seconds and where one is lost. Between, each box moves
    with the median motion of points in it (Kalal et al. 2010, "Forward-Backward Error: Automatic
    Detection of Tracking Failures", with the optical flow of Lucas and Kanade 1981). A face that
    is found belongs to the person whose box it overlaps most, else to a new person. A face that
    is not found again is followed for `GAP` seconds, as long as it looks as it did.

    Args:
        classify: Function from uint8 [N, 48, 48] to probabilities [N, K].
        detect: Whether faces are searched for; if not, a frame's middle is one face. "auto" does
            not search where both sides are at most `detection.CROP`.
    """

    def __init__(
        self, classify: Callable[[np.ndarray], np.ndarray], *, detect: bool | str = "auto"
    ):
        self.classify, self.detect = classify, detect
        self.tracks: list[_Track] = []
        self.persons, self.due = 0, 0.0
        self.before: np.ndarray | None = None

    def see(self, picture: np.ndarray, seconds: float) -> list[Person]:
        """Looks at the next frame.

        Args:
            picture: uint8 [H, W, 3] (RGB); always of the same size.
            seconds: Its time; it never falls.

        Returns:
            The persons in it.
        """
        image = Image.fromarray(picture)
        is_crop = self.detect == "auto" and max(image.size) <= detection.CROP
        if is_crop or not self.detect:
            self._match([(0, 0, *image.size, math.nan)], seconds)
        else:
            is_lost = self._move(picture)
            if is_lost or seconds > self.due - 1e-3:
                self._match(detection.find(image, searched=SEARCHED, least=UNSURE), seconds)
                self.due = seconds + SEARCH
        faces = [(track, detection.crop(image, *track.box)) for track in self.tracks if track.shown]
        for track, crop in faces:
            track.shown = _is_alike(track, crop, is_found=track.seen == seconds)
        shown = [track for track, _ in faces if track.shown]
        crops = [crop for track, crop in faces if track.shown]
        answers = self.classify(np.stack(crops)) if crops else ()
        return [
            Person(track.number, tuple(map(round, track.box)), track.score, answer.astype(float))
            for track, answer in zip(shown, answers, strict=True)
        ]

    def remember(self, picture: np.ndarray) -> np.ndarray:
        """Takes a frame as the one before the next, without looking for persons in it.

        Args:
            picture: uint8 [H, W, 3] (RGB).

        Returns:
            What is kept of it: grey, with a longer side of at most `SEARCHED` pixels.
        """
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        self.scale = max(1.0, max(grey.shape) / SEARCHED)
        size = [max(1, round(side / self.scale)) for side in grey.shape[::-1]]
        self.before = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        return self.before

    def _move(self, picture) -> bool:
        """Moves the boxes of those who are shown; returns whether any of them was lost."""
        before, shown = self.before, [track for track in self.tracks if track.shown]
        now = self.remember(picture)
        if before is None or before.shape != now.shape or not shown:
            return False
        grid = np.stack(np.meshgrid(*[np.linspace(0.2, 0.8, 8)] * 2), axis=-1).reshape(-1, 2)
        boxes = np.array([track.box for track in shown]) / self.scale
        old = (boxes[:, None, :2] + grid * boxes[:, None, 2:]).astype("float32")
        start = old.reshape(-1, 1, 2)
        new, found, _ = cv2.calcOpticalFlowPyrLK(
            before, now, start, np.empty_like(start), winSize=(15, 15), maxLevel=3
        )
        new, found = new.reshape(old.shape), found.reshape(old.shape[:2]) == 1
        for track, *points in zip(shown, old, new, found, strict=True):
            track.shown = _moved(track.box, *points, self.scale)
            right, bottom = np.add(track.box[:2], np.divide(track.box[2:], 2))
            inside = 0 < right < picture.shape[1] and 0 < bottom < picture.shape[0]
            track.shown = bool(track.shown and inside)
        return not all(track.shown for track in shown)

    def _match(self, faces, seconds) -> None:
        """Gives each face that was found to a person, and forgets who is gone for long.

        Faces of a low score go to persons who are left (Zhang et al. 2022, "ByteTrack", ECCV).
        """
        from scipy.optimize import linear_sum_assignment

        self.tracks = [track for track in self.tracks if seconds - track.seen <= GAP]
        left = list(self.tracks)
        for is_sure in (True, False):  # so is a picture that is a face: its score is no number
            some = [face for face in faces if (face[4] < detection.SURE) != is_sure]
            shares = np.array([_share(track, face) for track in left for face in some])
            shares = shares.reshape(len(left), len(some))
            best = zip(*linear_sum_assignment(-shares), strict=True)
            pairs = {i: j for i, j in best if shares[i, j] >= OVERLAP}
            owner = {j: left[i] for i, j in pairs.items()}
            for j, (*box, score) in enumerate(some):
                if j not in owner and is_sure:
                    self.persons += 1
                    owner[j] = _Track(self.persons, box, score, seconds)
                    self.tracks.append(owner[j])
                if track := owner.get(j):
                    track.box, track.score = [*map(float, box)], score
                    track.seen, track.shown = seconds, True
            left = [track for i, track in enumerate(left) if i not in pairs]

    def state(self) -> dict:
        """Gives all that is known of the persons, as JSON knows it."""
        return {"tracks": [*map(vars, self.tracks)], "persons": self.persons, "due": self.due}

    def restore(self, state: dict) -> None:
        """Takes what `state` gave."""
        self.tracks = [_Track(**track) for track in state["tracks"]]
        self.persons, self.due = state["persons"], state["due"]


def _share(track, face):
    """Gives the overlap of a face and a person; who was away may have moved by a box's width."""
    boxes = np.array([track.box, face[:4]], float)
    if not track.shown:
        boxes[:, :2] -= boxes[:, 2:] / 2
        boxes[:, 2:] *= 2
    return overlap(*boxes)


def _is_alike(track, crop, *, is_found) -> bool:
    """Says whether a face looks as it did when it was found last; remembers it if that is now."""
    look = crop.reshape(12, 4, 12, 4).mean(axis=(1, 3)).round().ravel()
    if is_found:
        track.look = look.tolist()
        return True
    with np.errstate(invalid="ignore"):  # of pictures without any contrast
        return bool(np.corrcoef(look, track.look)[0, 1] > ALIKE)


def _moved(box, old, new, found, scale) -> bool:
    """Moves and scales a box as most points in it moved; returns False where they do not agree."""
    if found.mean() < 0.5:
        return False
    old, new = old[found], new[found]
    step = np.median(new - old, axis=0)
    spread = np.abs(new - old - step).mean(axis=1)
    side = max(box[2:]) / scale
    if np.median(spread) > 0.1 * side:
        return False
    centre = np.median(old, axis=0)
    apart = np.linalg.norm(old - centre, axis=1)
    grown = np.median(np.linalg.norm(new - centre - step, axis=1)[apart > 0] / apart[apart > 0])
    grown = float(np.clip(grown, 0.9, 1.1))
    for axis in (0, 1):
        middle = box[axis] + box[axis + 2] / 2 + float(step[axis]) * scale
        box[axis + 2] *= grown
        box[axis] = middle - box[axis + 2] / 2
    return True


def smoothed(frame: Frame, around: list[Frame]) -> Frame:
    """Gives a frame whose persons have the median of their probabilities in the frames around it.

    Where an emotion changes, a median steps with it, and a mean comes early or late.
    """
    found: dict[int, list] = {}
    for person in (person for other in around for person in other.persons):
        found.setdefault(person.number, []).append(person.probabilities)
    persons = [replace(p, probabilities=_middle(found[p.number])) for p in frame.persons]
    return replace(frame, persons=persons)


def _middle(answers):
    """Gives the medians of probabilities, which sum to 1 again; the means where all are 0."""
    middle = np.median(answers, axis=0)
    return middle / middle.sum() if middle.any() else np.mean(answers, axis=0)


class Watch:
    """Goes through a clip frame by frame; between two frames it can be stopped, and continued.

    Args:
        path: The clip.
        follower: What finds persons.
        every: Least time between two frames in seconds; 0 is all frames.
        window: Time over which probabilities are medians, in seconds; 0 leaves them as they are.
        keep: Whether frames come with their pictures.
        state: What `state` gave, to continue from there.

    Attributes:
        total: How many frames were yielded.
        seconds: The time of the last of them.
        note: At the end, why the clip broke off; "" where it is whole.
    """

    def __init__(
        self,
        path: Path,
        follower: Follower,
        *,
        every: float = 0,
        window: float = WINDOW,
        keep: bool = False,
        state: dict | None = None,
    ):
        if not 0 <= every < math.inf:
            raise ValueError(f"every is {every}; give seconds, or 0 for all frames.")
        self.path, self.follower, self.every = path, follower, every
        self.half, self.keep, self.note = window / 2 + 1e-6, keep, ""
        self.last, self.answered, self.total, self.seconds = -1, 0, 0, 0.0
        self.seen: deque[Frame] = deque()
        if state:
            for name in _COUNTS:
                setattr(self, name, state[name])
            self.seen.extend(_frame(*each) for each in state["seen"])
            follower.restore(state["follower"])

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames that are left."""
        begin = self.last
        try:
            for number, seconds, picture in frames(self.path, every=self.every):
                if number == begin:
                    self.follower.remember(picture())
                if number <= begin:
                    continue
                picture = picture()
                persons = self.follower.see(picture, seconds)
                self.seen.append(Frame(number, seconds, persons, picture if self.keep else None))
                self.last = number
                yield from self._ready(seconds - self.half)
        except Cut as error:
            self.note = str(error)
        yield from self._ready(math.inf)

    def _ready(self, until):
        """Yields the frames whose window is whole, and forgets those that nobody needs."""
        while self.answered < len(self.seen) and self.seen[self.answered].seconds <= until:
            frame = self.seen[self.answered]
            around = [x for x in self.seen if abs(x.seconds - frame.seconds) <= self.half]
            while self.seen[0].seconds < frame.seconds - self.half:
                self.seen.popleft()
                self.answered -= 1
            self.answered += 1
            self.total, self.seconds = self.total + 1, frame.seconds
            yield smoothed(frame, around)

    def state(self) -> dict:
        """Gives what is needed to continue after the frame that was yielded last, for JSON."""
        seen = []
        for frame in self.seen:
            told = [(p.number, p.box, p.score, p.probabilities.tolist()) for p in frame.persons]
            seen.append((frame.number, frame.seconds, told))
        counts = {name: getattr(self, name) for name in _COUNTS}
        return counts | {"seen": seen, "follower": self.follower.state()}


def _frame(number, seconds, persons) -> Frame:
    """Makes a frame of what `Watch.state` says of it."""
    found = [Person(who, tuple(box), score, np.array(p)) for who, box, score, p in persons]
    return Frame(number, seconds, found)


class Live:
    """Looks at frames as they come, as from a camera; the window of medians lies before a frame.

    Args:
        follower: What finds persons.
        window: Time over which probabilities are medians, in seconds.
    """

    def __init__(self, follower: Follower, *, window: float = WINDOW):
        self.follower, self.window = follower, window
        self.seen: deque[Frame] = deque()
        self.numbers = count()

    def see(self, picture: np.ndarray, seconds: float) -> Frame:
        """Looks at the next frame, uint8 [H, W, 3] (RGB), at its time in seconds."""
        persons = self.follower.see(picture, seconds)
        self.seen.append(Frame(next(self.numbers), seconds, persons, picture))
        while self.seen[0].seconds < seconds - self.window - 1e-6:
            self.seen.popleft()
        return smoothed(self.seen[-1], list(self.seen))


# ---- writing -----------------------------------------------------------------------------


def annotated(frame: Frame, classes: tuple[str, ...]) -> Image.Image:
    """Draws a frame with its persons framed, above a strip of their probabilities.

    Args:
        frame: The frame, with its picture.
        classes: Names of the classes.

    Returns:
        An RGB picture of even width and height. Persons for whom the strip has no room are
        counted there.
    """
    colours = labels.colours(classes)
    image = Image.fromarray(np.asarray(frame.picture))
    for person in frame.persons:
        best = classes[person.probabilities.argmax()]
        text = f" {person.number} {best} {person.probabilities.max():.0%} "
        detection.mark(image, person.box, text, colours[best])
    width, height = image.width + image.width % 2, image.height + image.height % 2
    strip = LINE * (len(classes) + 2)
    canvas = Image.new("RGB", (width, height + strip + strip % 2), "white")
    canvas.paste(image)
    room = max(1, width // COLUMN)
    for place, person in enumerate(frame.persons[:room]):
        _draw_bars(canvas, place * COLUMN + 8, height + LINE // 2, person, colours)
    if (more := len(frame.persons) - room) > 0:
        spot = (8, height + strip - LINE)
        ImageDraw.Draw(canvas).text(spot, f"and {more} more", "black", detection.font(12))
    return canvas


def _draw_bars(canvas, left, top, person, colours):
    pen, letters = ImageDraw.Draw(canvas), detection.font(12)
    pen.text((left, top), f"person {person.number}", "black", letters)
    for line, (name, share) in enumerate(zip(colours, person.probabilities, strict=True), 1):
        y = top + line * LINE
        pen.text((left, y), name[:11], "black", letters)
        pen.rectangle((left + 70, y + 3, left + 70 + share * (COLUMN - 90), y + 12), colours[name])


def write(path: Path, shown: Iterable[tuple[float, Image.Image]], *, rate: float) -> None:
    """Writes pictures as an mp4 (H.264) that browsers play, whole or not at all.

    Args:
        path: Where to write.
        shown: From which second on a picture is shown, and the picture; all of one even size.
        rate: Frames a second.

    Raises:
        ImportError: If the extra `video` is not installed.
        files.Unwritable: If the disk is full, or there is no permission.
    """
    runtimes.need("video", "imageio_ffmpeg", what="To write a clip")
    import imageio_ffmpeg

    rest = iter(shown)
    first = next(rest)  # what is wrong with the clip is said before its file is begun
    options = {"codec": "libx264", "macro_block_size": 2, "quality": 7}
    options["output_params"] = ["-movflags", "+faststart"]
    before, written = np.ascontiguousarray(first[1]), 0
    with files.whole(path) as part:
        film = imageio_ffmpeg.write_frames(str(part), first[1].size, fps=rate, **options)
        with closing(film):
            film.send(None)
            for seconds, picture in chain([first], rest):
                now = np.ascontiguousarray(picture)
                for _ in range(written, round(seconds * rate)):
                    film.send(before)
                    written += 1
                if written == round(seconds * rate):
                    film.send(now)
                    written += 1
                before = now
