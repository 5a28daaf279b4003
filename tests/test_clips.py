"""Clips and cameras: what is read, who is followed, what is written and continued."""

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from ferlib import camera, clips, detection, drawn, prediction
from ferlib.__main__ import main
from ferlib.labels import EMOTIONS

cv2 = pytest.importorskip("cv2")
PROBABILITIES = list(EMOTIONS)
SIZE = (160, 120)


def film(path, pictures, rate=25.0, code="MJPG"):
    """Writes pictures, RGB, as a clip."""
    pictures = list(pictures)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, (width, height))
    assert writer.isOpened(), f"OpenCV cannot write {path}"
    for picture in pictures:
        writer.write(picture[..., ::-1])
    writer.release()
    return path


def scene(left, top=30, seed=32, emotion="happy", side=64):
    """Draws a face on a grey picture."""
    picture = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    face = Image.fromarray(drawn.person(seed, emotion, size=side))
    picture[top : top + side, left : left + side] = np.asarray(face)[..., None]
    return picture


def moving(frames=40):
    """Draws a face that moves to the right and back."""
    return [scene(round(40 + 35 * np.sin(n / 6))) for n in range(frames)]


def shade(pictures):
    """Stands in for a model: the brighter a face, the happier."""
    bright = np.clip(pictures.reshape(len(pictures), -1).mean(axis=1) / 255, 0, 1)
    answers = np.full((len(pictures), 7), 0.0)
    answers[:, EMOTIONS.index("happy")] = bright
    answers[:, EMOTIONS.index("sad")] = 1 - bright
    return answers


class Finder:
    """Stands in for the detector: gives boxes by the brightness of the first pixel."""

    def __init__(self, boxes):
        self.boxes, self.calls = boxes, 0

    def __call__(self, picture, *, searched, least):
        self.calls += 1
        return self.boxes(picture)


def patch(picture):
    """Finds the only face of `scene`: what differs from the grey around it."""
    away = np.abs(np.asarray(picture.convert("L"), int) - 128) > 24
    if not away.any():
        return []
    rows, columns = np.flatnonzero(away.any(axis=1)), np.flatnonzero(away.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [(left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1, 0.9)]


@pytest.fixture
def finder(monkeypatch):
    found = Finder(patch)
    monkeypatch.setattr(detection, "find", found)
    return found


# ---- reading -----------------------------------------------------------------------------

KINDS = {"avi": "MJPG", "mp4": "mp4v", "mov": "mp4v", "mkv": "mp4v", "webm": "VP80", "mpg": "PIM1"}


@pytest.mark.parametrize("kind", KINDS)
def test_films_are_read_frame_by_frame(kind, tmp_path):
    pictures = moving(12)
    try:
        path = film(tmp_path / f"clip.{kind}", pictures, code=KINDS[kind])
    except AssertionError:
        pytest.skip(f"this OpenCV writes no {kind}")
    anonymous = path.rename(tmp_path / "clip")
    assert clips.is_clip(anonymous)
    read = [(n, seconds, picture()) for n, seconds, picture in clips.frames(anonymous)]
    assert [n for n, *_ in read] == list(range(12))
    np.testing.assert_allclose([seconds for _, seconds, _ in read], np.arange(12) / 25, atol=2e-3)
    for (_, _, got), expected in zip(read, pictures, strict=True):
        assert got.shape == expected.shape and got.dtype == np.uint8
        assert np.abs(got.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animations_are_clips_with_their_own_times(kind, tmp_path):
    images = [Image.fromarray(picture) for picture in moving(5)]
    times = [40, 80, 120, 40, 40]
    path = tmp_path / "clip"
    images[0].save(path, kind, save_all=True, append_images=images[1:], duration=times)
    images[0].save(tmp_path / "still", kind)
    assert clips.is_clip(path) and not clips.is_clip(tmp_path / "still")
    read = [(seconds, picture()) for _, seconds, picture in clips.frames(path)]
    np.testing.assert_allclose([s for s, _ in read], [0, 0.04, 0.12, 0.24, 0.28])
    for (_, got), image in zip(read, images, strict=True):
        assert np.abs(got.astype(int) - np.asarray(image)).mean() < 10
    assert clips.about(path)[0] == 5


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n",
        "ffconcat version 1.0\nfile /etc/hostname\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
    ],
)
def test_lists_that_name_other_files_or_addresses_are_no_clips(text, tmp_path):
    (tmp_path / "clip.mp4").write_text(text, encoding="utf-8")
    assert not clips.is_clip(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="is no clip"):
        next(prediction.video(tmp_path / "clip.mp4", model=None))


def test_every_is_a_grid_of_time(tmp_path):
    path = film(tmp_path / "clip.avi", moving(25))
    told = [n for n, _, _ in clips.frames(path, every=0.2)]
    assert told == [0, 5, 10, 15, 20]


def test_a_cut_film_yields_what_it_has_and_says_so(tmp_path):
    path = film(tmp_path / "clip.avi", moving(60))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    seen = []
    with pytest.raises(clips.Cut, match=r"breaks off after \d+ of 60 frames"):
        for number, *_ in clips.frames(path):
            seen.append(number)
    assert seen == list(range(len(seen))) and 20 <= len(seen) <= 40
    mp4 = film(tmp_path / "clip.mp4", moving(60), code="mp4v")
    mp4.write_bytes(mp4.read_bytes()[:-2000])  # its index is at the end
    with pytest.raises(ValueError, match=r"clip\.mp4 is damaged, cut before its end"):
        next(clips.frames(mp4))


def test_frames_that_are_too_large_are_refused(tmp_path, monkeypatch):
    path = film(tmp_path / "clip.avi", moving(2))
    monkeypatch.setattr(clips, "LARGEST", 160 * 120 - 1)
    with pytest.raises(ValueError, match="160x120 pixels are too large"):
        next(clips.frames(path))


# ---- following ---------------------------------------------------------------------------


def test_a_face_is_followed_between_searches(finder):
    follower = clips.Follower(shade)
    for number, picture in enumerate(moving(40)):
        (person,) = follower.see(picture, number / 25)
        ((left, top, width, height, _),) = patch(Image.fromarray(picture))
        assert clips.overlap(person.box, (left, top, width, height)) > 0.7
        assert person.number == 1 and person.score == 0.9
    assert finder.calls - 40 <= 0 and finder.calls == 8  # every fifth frame, at 0.2 s


def test_who_comes_back_soon_is_the_same_and_who_comes_late_is_new(finder):
    empty = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for away, number in ((1.0, 1), (3.0, 2)):
        follower = clips.Follower(shade)
        times = np.arange(0, 1, 0.04)
        for time in times:
            follower.see(scene(40), time)
        gone = [len(follower.see(empty, time)) for time in times[-1] + np.arange(0.04, away, 0.04)]
        assert gone[-1] == 0 and sum(gone) <= 1
        (person,) = follower.see(scene(50), times[-1] + away + 0.2)
        assert person.number == number


def test_a_face_that_is_missed_is_followed_while_it_looks_alike(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), "u1")

    def see(hidden):
        """Gives how many are seen in each frame: a face is found once, then something hides it."""
        found = Finder(lambda picture: patch(picture) if found.calls == 1 else [])
        monkeypatch.setattr(detection, "find", found)
        follower, seen = clips.Follower(shade), []
        for number in range(75):
            picture = scene(40)
            picture[:, : hidden(number)] = noise[:, : hidden(number)]
            seen.append(len(follower.see(picture, number / 25)))
        return seen

    kept = see(lambda number: 0)
    assert 50 <= sum(kept) <= 56 and kept == sorted(kept, reverse=True)  # about two seconds
    assert not any(see(lambda number: min(4 * number, SIZE[0]))[30:])  # behind a wall of noise


def test_a_low_score_is_a_person_who_is_known_and_nobody_new(monkeypatch):
    faces = []
    monkeypatch.setattr(detection, "find", lambda picture, **_: faces)
    follower, told = clips.Follower(shade), []
    for number, scores in enumerate([(0.5,), (0.9,), (0.5, 0.6), (0.7, 0.9), (0.5, 0.6)]):
        faces[:] = [(10 + 80 * place, 20, 40, 50, s) for place, s in enumerate(scores)]
        follower.due = 0
        told.append({p.number: p.score for p in follower.see(scene(40), number / 25)})
    assert told == [{}, {1: 0.9}, {1: 0.5}, {1: 0.7, 2: 0.9}, {1: 0.5, 2: 0.6}]


def test_two_persons_keep_their_numbers(monkeypatch):
    places = {"now": []}
    monkeypatch.setattr(detection, "find", lambda picture, **_: places["now"])
    follower = clips.Follower(shade)
    rng, told = np.random.default_rng(0), []
    for number in range(20):
        faces = [(10 + number, 30, 40, 50, 0.9), (90 - number, 20, 40, 50, 0.8)]
        places["now"] = [faces[i] for i in rng.permutation(2)]
        follower.due = 0
        told.append({p.number: p.score for p in follower.see(scene(40), number / 25)})
    assert told == [told[0]] * 20 and sorted(told[0]) == [1, 2]


def test_probabilities_are_medians_over_the_window(finder, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [np.clip(scene(40) * u, 0, 255).astype("u1") for u in rng.uniform(0.7, 1, 30)]
    path = film(tmp_path / "clip.avi", pictures)

    def watch(window):
        whole = clips.Watch(path, clips.Follower(shade, detect=False), window=window)
        return np.array([frame.persons[0].probabilities for frame in whole])

    raw, smooth = watch(0), watch(0.2)
    assert len(raw) == len(smooth) == 30
    for n in range(30):  # two frames before and two after
        middle = np.median(raw[max(0, n - 2) : n + 3], axis=0)
        np.testing.assert_allclose(smooth[n], middle / middle.sum())
    live = clips.Live(clips.Follower(shade, detect=False), window=0.2)
    last = [live.see(picture(), seconds) for _, seconds, picture in clips.frames(path)]
    middle = np.median(raw[15:21], axis=0)
    np.testing.assert_allclose(last[20].persons[0].probabilities, middle / middle.sum())
    assert [frame.number for frame in last] == list(range(30))  # though few are kept
    np.testing.assert_allclose([frame.seconds for frame in last], np.arange(30) / 25, atol=2e-3)
    assert len(live.seen) == 6


def test_a_median_steps_where_the_emotion_does():
    sure, unsure = np.array([[0.95, 0.03, 0.02], [0.3, 0.4, 0.3]])
    frames = [
        clips.Frame(n, n / 25, [clips.Person(1, (0, 0, 9, 9), 0.9, sure if n < 10 else unsure)])
        for n in range(20)
    ]
    for n, frame in enumerate(frames[5:15], 5):
        (person,) = clips.smoothed(frame, frames[n - 5 : n + 6]).persons
        assert person.probabilities.argmax() == (0 if n < 10 else 1)
    thirds = [
        replace(frame, persons=[replace(p, probabilities=np.eye(3)[frame.number % 3])])
        for frame in frames[:3]
        for p in frame.persons
    ]
    (person,) = clips.smoothed(thirds[1], thirds).persons
    np.testing.assert_allclose(person.probabilities, 1 / 3)


def test_a_watch_continues_as_if_it_had_not_stopped(finder, tmp_path):
    path = film(tmp_path / "clip.avi", [*moving(30), *[scene(40)] * 10])

    def told(frame):
        return frame.number, [(p.number, p.box, p.score, [*p.probabilities]) for p in frame.persons]

    whole = [told(frame) for frame in clips.Watch(path, clips.Follower(shade))]
    assert len(whole) == 40
    for stop in (1, 2, 9, 23, 39):
        watch = clips.Watch(path, clips.Follower(shade))
        frames = iter(watch)
        begin = [told(next(frames)) for _ in range(stop)]
        state = json.loads(json.dumps(watch.state()))
        again = clips.Watch(path, clips.Follower(shade), state=state)
        assert begin + [told(frame) for frame in again] == whole
        assert again.total == 40


def right_shares(rows, truth):
    """Gives the share of faces with the right person, and with the right emotion.

    Args:
        rows: One dict a face and frame: frame, left, top, width, height, person, emotion.
        truth: For each frame the (person, box, emotion) that are in it.
    """
    hits, pairs = [], Counter()
    by_frame = {}
    for row in rows:
        by_frame.setdefault(row["frame"], []).append(row)
    for number, persons in enumerate(truth):
        for who, (left, top, width, height), emotion in persons:
            here = [
                row
                for row in by_frame.get(number, ())
                if left < row["left"] + row["width"] / 2 < left + width
                and top < row["top"] + row["height"] / 2 < top + height
            ]
            hits.append((who, emotion, here))
            pairs.update((who, row["person"]) for row in here)
    own = {who: max(pairs, key=lambda pair: pairs[pair] * (pair[0] == who))[1] for who, _ in pairs}
    assert len(set(own.values())) == len(own), "two persons have one number"
    person = [len(here) == 1 and here[0]["person"] == own[who] for who, _, here in hits]
    mood = [bool(here) and here[0]["emotion"] == emotion for _, emotion, here in hits]
    return np.mean(person), np.mean(mood)


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [(10, 0), *[pytest.param(30, seed, marks=pytest.mark.slow) for seed in (0, 1)]],
)
def test_a_drawn_clip_gets_its_known_answer(seconds, seed, tmp_path):
    pytest.importorskip("mtcnn")
    pictures, truth = zip(*drawn.clip(seconds, seed=seed), strict=True)
    path = film(tmp_path / "clip.mp4", pictures, code="mp4v")
    out = tmp_path / "faces.csv"
    tally = prediction.predict_to_csv(path, out, model="tiny")
    assert tally.clips == 1 and tally.pictures == 0 and not tally.unreadable
    table = pd.read_csv(out)
    assert tuple(table.columns) == (*prediction.columns(moving=True), "model", "note")
    assert table.note.iloc[-1].startswith(f"end of the clip: {25 * seconds} frames up to")
    faces = table[table.note.isna()]
    assert len(faces) == tally.faces
    np.testing.assert_allclose(faces.seconds, faces.frame / 25, atol=1e-3)
    np.testing.assert_allclose(faces[PROBABILITIES].sum(axis=1), 1, atol=1e-3)
    person, emotion = right_shares(faces.to_dict("records"), truth)
    told = f"persons {person:.1%}, emotions {emotion:.1%}"
    assert person >= 0.95 and emotion >= 0.9, told


# ---- the program -------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("torn", [0, 1, 40, 3000])
def test_an_interrupted_clip_goes_on_with_the_same_rows(torn, finder, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(drawn.person(1, "sad")).save(folder / "a.png")
    film(folder / "b.avi", [np.full_like(scene(0), 128)] * 60 + moving(120))
    film(folder / "c.avi", moving(70))
    options = {"model": "tiny", "progress": False}
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    expected = prediction.predict_to_csv(folder, whole, **options)
    assert (expected.clips, expected.pictures, expected.faces) == (2, 1, 1 + 120 + 70)
    see, seen = clips.Follower.see, []

    def limited(self, *args):
        seen.append(args)
        if len(seen) % 71 == 0:
            raise KeyboardInterrupt
        return see(self, *args)

    monkeypatch.setattr(clips.Follower, "see", limited)
    stops = 0
    while True:
        try:
            tally = prediction.predict_to_csv(folder, part, **options)
            break
        except KeyboardInterrupt:
            stops += 1
            data = part.read_bytes()
            part.write_bytes(data[: max(0, len(data) - torn)])
    assert stops >= 3 and tally == expected
    assert len(seen) < 250 + 71 * stops  # it did not begin anew each time
    assert part.read_bytes() == whole.read_bytes()
    digests = [".part.csv.sha256", ".whole.csv.sha256"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*digests, "in", "part.csv", "whole.csv"]
    before = len(seen)
    assert prediction.predict_to_csv(folder, part, **options) == expected
    assert len(seen) == before and part.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("option", "value"), [("every", 0.2), ("detect", False), ("boxes", "boxes.csv")]
)
def test_a_csv_goes_on_only_as_it_was_begun(option, value, finder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film("clip.avi", moving(10))
    (tmp_path / "boxes.csv").write_text("file,left,top,width,height\n", encoding="utf-8")
    prediction.predict_to_csv("clip.avi", "out.csv", model="tiny")
    before = (tmp_path / "out.csv").read_bytes()
    with pytest.raises(ValueError, match=rf"is of the model tiny \w+, not .*{option}"):
        prediction.predict_to_csv("clip.avi", "out.csv", model="tiny", **{option: value})
    assert (tmp_path / "out.csv").read_bytes() == before


def test_a_folder_mixes_pictures_and_clips(finder, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(drawn.person(1, "sad")).save(folder / "face.png")
    film(folder / "whole.avi", moving(20))
    data = film(folder / "cut.avi", moving(60)).read_bytes()
    (folder / "cut.avi").write_bytes(data[: len(data) // 2])
    broken = film(folder / "broken.mp4", moving(20), code="mp4v")
    broken.write_bytes(broken.read_bytes()[:-500])
    (folder / "list.m3u8").write_text("#EXTM3U\nhttp://127.0.0.1/a.ts\n", encoding="utf-8")
    images = [Image.fromarray(picture) for picture in moving(4)]
    images[0].save(folder / "moving.gif", save_all=True, append_images=images[1:], duration=40)
    found = prediction.predict(folder, model="tiny")
    assert (found.pictures, found.clips) == (2, 3)  # broken.mp4 was never seen to be a clip
    problems = {os.path.basename(file): why for file, why in found.unreadable.items()}
    assert set(problems) == {"cut.avi", "broken.mp4"}
    assert "breaks off after" in problems["cut.avi"] and "damaged" in problems["broken.mp4"]
    assert [os.path.basename(file) for file in found.others] == ["list.m3u8"]
    counted = Counter(os.path.basename(row[0]) for row in found.rows)
    assert counted.pop("cut.avi") in range(20, 41)
    assert counted == {"face.png": 1, "whole.avi": 20, "moving.gif": 4}
    table = found.to_frame()
    assert tuple(table.columns) == prediction.columns(moving=True)
    assert table.frame.isna().sum() == 1 and "3 clips, 2 pictures" in str(found)
    assert found.draw().mode == "RGB"  # the picture; a clip has no still

    out = str(tmp_path / "faces.csv")
    assert main(["predict", str(folder), "--out", out, "--model", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["clips"] == 3 and told["faces"] == found.faces
    written = pd.read_csv(out)
    assert written.note.str.contains("breaks off").sum() == 1
    for name, status in {"whole.avi": 0, "cut.avi": 1, "broken.mp4": 1}.items():
        command = ["predict", str(folder / name), "--every", "0.2", "--model", "tiny"]
        assert main(command) == status
        assert ("breaks off" in capsys.readouterr().err) == (name == "cut.avi")


def test_what_no_clip_can_be_written_as_is_refused(finder, tmp_path, capsys):
    path = film(tmp_path / "clip.avi", moving(3))
    for options, problem in {
        ("--out", str(tmp_path / "faces.webm")): "written as .csv, and a clip as .mp4",
        ("--every=-1",): "every is -1.0; give seconds",
        ("--every=nan",): "every is nan",
    }.items():
        assert main(["predict", str(path), *options, "--model", "tiny"]) == 1
        assert problem in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["clip.avi"]


def test_crops_that_move_are_not_searched(tmp_path):
    pictures = [np.repeat(drawn.person(32, "happy")[..., None], 3, axis=2)] * 6
    path = film(tmp_path / "crop.avi", pictures)
    table = prediction.predict(path, model="tiny").to_frame()
    (still,) = prediction.predict(pictures[0], model="tiny").to_frame().emotion
    assert table[["frame", "person", "width"]].to_numpy().tolist() == [[n, 1, 48] for n in range(6)]
    assert set(table.emotion) == {still} and table.score.isna().all()


def test_video_yields_frames_with_pictures(finder, tmp_path):
    path = film(tmp_path / "clip.avi", moving(60))
    frames = list(prediction.video(path, model="tiny", every=0.4))
    assert [frame.number for frame in frames] == [0, 10, 20, 30, 40, 50]
    assert all(frame.picture.shape == (120, 160, 3) for frame in frames)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=r"clip\.avi: it breaks off"):
        assert len(list(prediction.video(path, model="tiny", every=0.4))) in range(2, 5)
    with pytest.raises(FileNotFoundError, match="gone"):
        next(prediction.video(tmp_path / "gone.mp4", model="tiny"))


@pytest.mark.slow
def test_memory_does_not_grow_with_a_clip(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 240, 320, 3), "u1")
    path = film(tmp_path / "clip.avi", (noise[n % 64] for n in range(4000)))
    script = """
import sys, psutil
from ferlib import prediction
memory = lambda: psutil.Process().memory_info().rss / 2**20
for number, _ in enumerate(prediction.stream(sys.argv[1], model="tiny", detect=False)):
    if number in (500, 4000):
        print(memory())
"""
    command = [sys.executable, "-c", script, str(path)]
    told = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    early, late = map(float, told.split())
    assert late - early < 40, f"{early:.0f} MB after 500 frames, {late:.0f} MB after 4,000"


def test_a_clip_is_written_with_its_persons(finder, tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    path = film(tmp_path / "clip.avi", moving(50), rate=20)
    out = tmp_path / "faces.mp4"
    assert main(["predict", str(path), "--out", str(out), "--model", "tiny"]) == 0
    video = cv2.VideoCapture(str(out))
    code = int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    assert code in (b"h264", b"avc1")
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 50
    head = out.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # browsers begin before all is there
    picture = video.read()[1]
    height, width = picture.shape[:2]
    assert width == 160 and height > 120 + 7 * 12 and height % 2 == 0
    strip = picture[125:].astype(int)
    assert (np.ptp(strip, axis=2) > 60).sum() > 100, "no coloured bars under the picture"
    assert main(["predict", str(path), str(path), "--out", str(out)]) == 1
    assert "a clip is written of one clip" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.avi", "faces.mp4"]


def test_a_clip_that_breaks_off_is_written_up_to_there(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    path = film(tmp_path / "cut.avi", moving(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    draw = clips.annotated

    def annotated(*given):
        warnings.warn("of something else", stacklevel=1)
        return draw(*given)

    monkeypatch.setattr(clips, "annotated", annotated)
    with pytest.warns(UserWarning, match="of something else"):
        tally = prediction.predict_to_clip(
            path, tmp_path / "faces.mp4", model="tiny", detect=False, progress=False
        )
    assert [*tally.unreadable] == [str(path)] and (tmp_path / "faces.mp4").exists()
    assert tally.unreadable[str(path)].startswith("it breaks off after")


def test_a_clip_that_fails_leaves_nothing_at_work(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")

    def shown():
        yield 0.0, Image.new("RGB", (64, 64))
        raise KeyError("mouth")

    with pytest.raises(KeyError) as error:  # which keeps alive what is open
        clips.write(tmp_path / "faces.mp4", shown(), rate=25)
    assert not [x for x in psutil.Process().children() if "ffmpeg" in x.name()], error
    assert not list(tmp_path.iterdir())


def test_a_clip_alone_has_no_picture_to_draw():
    with pytest.raises(KeyError):
        prediction.Predictions(clips=1).draw()


def test_a_strip_counts_those_for_whom_it_has_no_room():
    persons = [clips.Person(n, (10, 10, 40, 40), 0.9, np.full(7, 1 / 7)) for n in range(1, 6)]
    image = clips.annotated(clips.Frame(0, 0.0, persons, scene(40)), EMOTIONS)
    assert image.width == 160 and image.height % 2 == 0
    few = clips.annotated(clips.Frame(0, 0.0, persons[:1], scene(40)), EMOTIONS)
    assert np.asarray(image).tobytes() != np.asarray(few).tobytes()


# ---- the camera --------------------------------------------------------------------------


class FakeCamera:
    """Stands in for cv2.VideoCapture."""

    def __init__(self, number):
        self.pictures = iter(moving(30) if number == 0 else ())
        self.number = number

    def isOpened(self):
        return self.number == 0

    def get(self, what):
        return {3: SIZE[0], 4: SIZE[1], 5: 25.0}.get(what, 0.0)

    def grab(self):
        self.picture = next(self.pictures, None)
        return self.picture is not None

    def retrieve(self):
        return True, self.picture[..., ::-1]

    def release(self):
        pass


def test_the_camera_in_a_window(finder, monkeypatch, capsys):
    shown = []
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 12 else -1)
    assert main(["predict", "camera", "--model", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"frames": 12} and len(shown) == 12
    assert shown[0].shape[0] > SIZE[1] and shown[0].shape[1] == SIZE[0]
    with pytest.raises(ValueError, match="no camera 3"):
        camera.window(model="tiny", camera=3)


def test_the_camera_says_what_it_lacks(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", ":9")

    def no_window(*_):
        raise cv2.error("The function is not implemented.")

    monkeypatch.setattr(cv2, "namedWindow", no_window)
    assert main(["predict", "camera", "--model", "tiny"]) == 1
    assert 'pip install "opencv-python<5"' in capsys.readouterr().err
    assert main(["predict", "camera", "--out", "faces.csv"]) == 1
    assert "for files" in capsys.readouterr().err
    if sys.platform == "linux":
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        assert main(["predict", "camera", "--model", "tiny"]) == 1
        assert "no screen" in capsys.readouterr().err
    (tmp_path / "camera").mkdir()
    assert main(["predict", "camera"]) == 1
    assert "write ./camera" in capsys.readouterr().err
