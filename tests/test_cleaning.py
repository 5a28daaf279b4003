"""Cleaning takes from train only, and splits that are made share no picture."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ferlib import cleaning, sources
from ferlib.sources import Fault, FERData

KNOWN = 0x1F3870023622CF8B  # of a black picture


def make(labels, split, images=None) -> FERData:
    n = len(labels)
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (n, 48, 48), np.uint8)
    names = np.array([f"row {i + 1}" for i in range(n)])
    return FERData(images, np.array(labels), np.array(split), None, names, "made", "made")


@pytest.fixture
def copies() -> FERData:
    """Row 0 constant, 1 = 2 = 3 in train, 4 = 5 with two labels, 6 = 7 in val, 8 = 1 in val,
    9 constant in val, 10 = 11 in train and test with two labels."""
    split = ["train"] * 6 + ["val"] * 4 + ["train", "test"] + ["train"] * 4
    data = make([0, 1, 1, 1, 2, 3, 4, 4, 1, 5, 6, 0, 3, 4, 5, 6], split)
    images = data.images
    images[0], images[9] = 0, 7
    images[2] = images[3] = images[8] = images[1]
    images[5], images[7], images[11] = images[4], images[6], images[10]
    return data


def test_hashes_are_those_of_exact_copies(copies):
    hashes = cleaning.picture_hashes(copies.images)
    assert hashes.dtype == np.uint64 and len(hashes) == 16
    assert len(set(hashes[[1, 2, 3, 8]])) == 1 and len(set(hashes)) == 10
    assert np.array_equal(hashes, cleaning.picture_hashes(copies.images[..., None]))
    assert hashes[0] == KNOWN, "models keep these hashes: they must never change"


def test_clean_takes_from_train_only(copies):
    kept, report = cleaning.clean(copies)
    removed = dict(zip(report.removed["row"], report.removed["reason"], strict=True))
    assert removed == {
        0: "constant picture",
        2: "surplus copy",
        3: "surplus copy",
        4: "copy with another label",
        5: "copy with another label",
    }
    assert kept.names.tolist() == [f"row {i + 1}" for i in (1, *range(6, 16))]
    assert report.counts == {
        "constant picture": 1, "copy with another label": 2, "surplus copy": 2,
    }  # fmt: skip
    assert report.before - report.after == 5 and report.made == {}
    assert report.to_frame()["pictures"].tolist() == [16, 1, 2, 2, 11]
    assert np.array_equal(kept.split, copies.split[[1, *range(6, 16)]])


def test_find_copies(copies):
    table = cleaning.find_copies(copies)
    assert table["copies"].tolist() == [4, 2, 2, 2]
    assert table.loc[0, ["train", "val", "test"]].tolist() == [3, 1, 0]
    assert table.loc[0, "rows"] == [1, 2, 3, 8]
    assert table["conflicting"].sum() == 2 and table["across"].sum() == 2
    assert set(table["labels"]) == {"disgust", "fear, happy", "sad", "angry, neutral"}


def with_copies(faces, split) -> FERData:
    """Drawn faces in which every third is a copy of the one before it."""
    images = faces.images.copy()
    images[2::3] = images[1::3][: len(images[2::3])]
    labels = faces.labels.copy()
    labels[2::3] = labels[1::3][: len(labels[2::3])]
    return replace(faces, images=images, labels=labels, split=np.full(len(faces), split))


def test_missing_splits_are_made_without_copies_on_both_sides(faces):
    data = with_copies(faces, "")
    made, report = cleaning.clean(data, seed=3)
    assert made.splits == ("train", "val", "test")
    hashes = {name: set(cleaning.picture_hashes(made.of(name).images)) for name in made.splits}
    assert not hashes["train"] & hashes["val"] and not hashes["train"] & hashes["test"]
    assert not hashes["val"] & hashes["test"]
    for name in ("val", "test"):
        assert report.made[name] == len(made.of(name)) == pytest.approx(0.1 * len(made), abs=4)
        counts = np.bincount(made.of(name).labels, minlength=7)
        assert np.abs(counts - 0.1 * np.bincount(made.labels, minlength=7)).max() <= 1
    assert np.array_equal(cleaning.clean(data, seed=3)[0].split, made.split)
    assert not np.array_equal(cleaning.clean(data, seed=4)[0].split, made.split)


def test_val_is_made_from_train_where_only_it_is_missing(faces):
    data = with_copies(faces, "train")
    data.split[600:] = "test"
    made, report = cleaning.clean(data)
    assert made.splits == ("train", "val", "test") and list(report.made) == ["val"]
    assert np.array_equal(made.of("test").names, data.names[600:])
    train, val = (set(cleaning.picture_hashes(made.of(name).images)) for name in ("train", "val"))
    assert not train & val


def test_official_splits_stay(faces):
    data = replace(faces, split=np.where(faces.split == "test", "train", faces.split))
    made, report = cleaning.clean(data)
    assert made.splits == ("train", "val") and report.made == {}
    assert (made.split == "val").sum() == (data.split == "val").sum()


def test_only_a_test_split_is_left_alone(faces):
    only = faces.of("test")
    assert cleaning.clean(only)[0].splits == ("test",)


def test_prepare(faces, monkeypatch):
    monkeypatch.setattr("ferlib.drawn.draw", lambda n=0: with_copies(faces, ""))
    data = cleaning.prepare("drawn", limit=100)
    assert len(data) == 100 and data.splits == ("train", "val", "test")
    assert len(cleaning.prepare("drawn")) == len(cleaning.clean(sources.load("drawn"))[0])


def test_overview(copies):
    copies.faults.append(Fault("a.csv", 3, "cut"))
    found = json.loads(json.dumps(cleaning.overview(copies)))
    assert found["pictures"] == 16 and found["votes"] is False and found["constant"] == 2
    assert found["splits"]["val"]["sad"] == 2
    assert found["copies"] == {
        "groups": 4, "surplus": 6, "conflicting": 2, "seen": {"val": 1, "test": 1},
    }  # fmt: skip
    assert found["faults"] == [{"file": "a.csv", "row": 3, "problem": "cut"}]


def test_fer2013(fer2013, tmp_path):
    data = sources.load(fer2013, cache=tmp_path, votes=None)
    found = cleaning.overview(data)
    assert found["copies"]["seen"]["val"] == 281
    kept, report = cleaning.clean(data)
    assert len(kept.of("val")) == 3589 == (data.split == "val").sum()
    train = cleaning.picture_hashes(kept.of("train").images)
    assert len(np.unique(train)) == len(train)
    assert 1000 < report.counts["surplus copy"] < found["copies"]["surplus"]
