"""Whatever people have is read by what it is, each row accounted for, and no label is guessed."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferlib import cleaning, faces, labels, sources
from ferlib.labels import EMOTIONS, FERPLUS

N = 84
RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (N, 48, 48), np.uint8)
LABELS = np.arange(N) % 7
USAGE = np.repeat(["Training", "PublicTest", "PrivateTest"], [56, 14, 14])
SPLIT = np.repeat(["train", "val", "test"], [56, 14, 14])
RAFDB = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "angry", 7: "neutral"}


def text(image, between=" ") -> str:
    return between.join(map(str, image.ravel()))


def lines(form="{e},{p},{u}", rows=range(N), between=" ") -> str:
    made = [form.format(e=LABELS[i], p=text(IMAGES[i], between), u=USAGE[i]) for i in rows]
    return "\n".join(made) + "\n"


CSV = "emotion,pixels,Usage\n" + lines()


def put(path, i, size=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(IMAGES[i]).resize((size, size)).save(path)


def load(source, **options):
    return sources.load(source, **{"cache": False, **options})


def check(data, split=SPLIT):
    assert np.array_equal(data.images, IMAGES)
    assert np.array_equal(np.array(data.classes)[data.labels], np.array(EMOTIONS)[LABELS])
    assert np.array_equal(data.split, split)
    assert not data.faults


def accounted(data) -> int:
    """Counts the pictures and rows of a source by what became of each."""
    left_out = sum(left.pictures for left in data.left_out)
    return len(data) + len(data.unlabelled) + len(data.faults) + left_out


def tar(**members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


# ---- what a file is shows in its first bytes ---------------------------------------------


@pytest.mark.parametrize("name", ["fer2013", "fer2013.csv", "data.bin", "fer2013.txt"])
@pytest.mark.parametrize("kind", ["csv", "gzip", "bzip2", "xz", "tar", "tar in gzip", "zip"])
def test_the_name_does_not_matter(tmp_path, name, kind):
    raw = CSV.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", raw)
    content = {
        "csv": raw,
        "gzip": gzip.compress(raw, 1),
        "bzip2": bz2.compress(raw),
        "xz": lzma.compress(raw, preset=0),
        "tar": tar(inside=raw),
        "tar in gzip": gzip.compress(tar(inside=raw), 1),
        "zip": packed.getvalue(),
    }[kind]
    (tmp_path / name).write_bytes(content)
    check(load(tmp_path / name))
    check(load(tmp_path))


VOTES = "Usage,Image name," + ",".join(FERPLUS) + "\nTraining,fer0000000.png" + ",1" * 10 + "\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html>sign in</html>", "web page"),
        (b"", "empty file"),
        (b" \n\n", "empty file"),
        (VOTES.encode(), "FER\\+'s votes.*fer2013.csv beside"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "weights"),
        (b"\x80\x04\x95" + bytes(99), "pickle"),
        (b"image;mood\n1;2\n", "image;mood"),
        (bytes(2000), "unknown kind"),
        (b"%PDF-1.4", "PDF"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, content, said):
    raw = tmp_path / "project" / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "fer2013.csv").write_bytes(content)
    monkeypatch.delenv("FERLIB_DATA", raising=False)
    monkeypatch.setattr(sources, "project_folder", lambda: tmp_path / "project")
    for source in (raw, raw / "fer2013.csv", None):  # never a download or drawn faces instead
        with pytest.raises(ValueError, match=f"(?s)fer2013.csv.*{said}"):
            load(source)


def test_office_and_model_files_are_named(tmp_path):
    for name, member in (("a.xlsx", "[Content_Types].xml"), ("b.keras", "model.weights.h5")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "x")
    with pytest.raises(ValueError, match=r"(?s)a.xlsx: an Excel.*b.keras: a Keras model"):
        load(tmp_path)


@pytest.mark.parametrize("ending", ["jfif", "gif", "tiff", "jp2", "pgm", "avif", "bmp", ""])
def test_all_formats_of_photos(tmp_path, ending):
    for name in ("happy", "sad"):
        path = tmp_path / name / f"face.{ending}".rstrip(".")
        path.parent.mkdir()
        formats = {"": "PNG", "jfif": "JPEG", "jp2": "JPEG2000", "pgm": "PPM"}
        Image.fromarray(IMAGES[0]).save(path, format=formats.get(ending, ending.upper()))
    assert load(tmp_path).classes == ("happy", "sad")


def test_heic_without_its_reader_is_a_fault_that_says_so(tmp_path):
    for i in range(40):
        put(tmp_path / EMOTIONS[i % 2] / f"{i}.png", i)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
    (tmp_path / "angry" / "IMG_1.HEIC").write_bytes(heic)
    with pytest.warns(UserWarning, match="1 fault"):
        data = load(tmp_path)
    assert "pillow-heif" in data.faults[0].problem
    assert accounted(data) == 41


# ---- tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "split"),
    [
        (CSV.replace(",", ";"), SPLIT),
        (CSV.replace(",", "\t"), SPLIT),
        (CSV.replace("\n", "\r"), SPLIT),
        (CSV.encode("utf-16"), SPLIT),
        (CSV.encode("utf-8-sig"), SPLIT),
        (",emotion,pixels,Usage\n" + lines("5,{e},{p},{u}"), SPLIT),
        ("emotion,pixels,Usage\n" + lines("{e}.0,{p},{u}"), SPLIT),
        ("emotion,pixels,Usage\n" + lines('{e},"[{p}]",{u}', between=", "), SPLIT),
        ("emotion,pixels,Usage\n" + lines('{e},"{p}",{u}', between="\n"), SPLIT),
        ("emotion,pixels,Usage\n" + lines("{e},{p},{u}", between=".0 "), SPLIT),
        ("label," + ",".join(f"pixel{i}" for i in range(2304)) + "\n"
         + lines("{e},{p}", between=","), np.full(N, "")),
        (lines(), SPLIT),
        (lines("{e},{p}"), np.full(N, "")),
        (lines("{e},{p}", between=","), np.full(N, "")),
        (CSV.replace("PublicTest", "val").replace("PrivateTest", "Testing"), SPLIT),
    ],
)  # fmt: skip
def test_tables_as_people_save_them(tmp_path, content, split):
    path = tmp_path / "fer.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(load(path), split)


def test_labels_as_names(tmp_path):
    rows = "\n".join(f"{EMOTIONS[LABELS[i]].title()},{text(IMAGES[i])}" for i in range(N))
    (tmp_path / "a.csv").write_text("emotion,pixels\n" + rows + "\n")
    check(load(tmp_path / "a.csv"), np.full(N, ""))


def test_pixels_from_0_to_1_only_where_all_rows_are(tmp_path):
    def row(i):
        return f"{LABELS[i]}," + " ".join(f"{value / 255:.5f}" for value in IMAGES[i].ravel())

    path = tmp_path / "a.csv"
    rows = [row(i) for i in range(N)]
    path.write_text("emotion,pixels\n" + "\n".join(rows) + "\n")
    check(load(path), np.full(N, ""))
    whole = lines("{e},{p}", range(1, N))
    path.write_text(f"emotion,pixels\n{rows[0]}\n{whole}")
    with pytest.warns(UserWarning, match="row 1: pixel .* no whole number"):
        assert len(load(path)) == N - 1


@pytest.mark.parametrize(
    "header",
    [
        "emotion,emotion,pixels",
        "pixels,emotion,pixels",
        "emotion,pixels,Usage,usage",
        "emotion,label,pixels",
    ],
)
def test_a_column_twice_is_an_error(tmp_path, header):
    path = tmp_path / "a.csv"
    path.write_text(header + "\n" + lines("{e},{p},{u}"))
    with pytest.raises(ValueError, match="twice"):
        load(path)


@pytest.mark.parametrize("usage", ["Public Test", "PUBLICTEST ", "public_test", "Val", "valid"])
def test_one_rule_for_splits(usage):
    assert faces.split_of(usage) == "val"


@pytest.mark.parametrize("usage", ["\uff34\uff25\uff33\uff34", "Publictests", "", "1", "val2"])
def test_other_words_are_no_split(usage):
    assert faces.split_of(usage) == ""


@pytest.mark.parametrize("digits", ["\uff13", "\u0663", "\u00b3", "+3", "0x3", "3e0"])
def test_digits_are_those_of_ascii(tmp_path, digits):
    path = tmp_path / "a.csv"
    path.write_text("emotion,pixels\n" + lines("{e},{p}") + f"{digits},{text(IMAGES[0])}\n"
                    + f"3,{digits}{text(IMAGES[0])[1:]}\n", encoding="utf-8")  # fmt: skip
    with pytest.warns(UserWarning, match="2 faults"):
        data = load(path)
    assert [fault.row for fault in data.faults] == [N + 1, N + 2]


# ---- parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Testing"),
                                   ("fer_train", "fer_validation", "fer_test")])  # fmt: skip
@pytest.mark.parametrize("usage", [True, False])
def test_tables_of_splits_are_read_together(tmp_path, names, usage):
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        rows = np.flatnonzero(split == SPLIT)
        head, form = ("emotion,pixels,Usage\n", "{e},{p},{u}") if usage else (
            "emotion,pixels\n", "{e},{p}")  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(head + lines(form, rows))
    check(load(tmp_path))


def test_folders_of_splits(tmp_path):
    for i in range(N):
        part = {"train": "Training", "val": "val_set", "test": "Testing"}[SPLIT[i]]
        put(tmp_path / part / EMOTIONS[LABELS[i]] / f"{i:03}.png", i)
    data = load(tmp_path)
    assert data.splits == ("train", "val", "test") and accounted(data) == N
    for split in data.splits:
        assert (data.split == split).sum() == (split == SPLIT).sum()


def test_what_is_left_out_is_named_and_counted(tmp_path):
    (tmp_path / "fer2013.csv").write_text(CSV)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "some.csv").write_text("emotion,pixels\n" + lines("{e},{p}", range(9)))
    put(tmp_path / "photos" / "me.png", 0)
    (tmp_path / "notes.txt").write_text("hello")
    data = load(tmp_path)
    check(data)
    left = {entry.file: entry for entry in data.left_out}
    assert left["copy/some.csv"].pictures == 9 and "fer2013.csv" in left["copy/some.csv"].reason
    assert left["photos"].pictures == 1
    assert left["notes.txt"].pictures == 0
    assert accounted(data) == N + 9 + 1
    found = cleaning.overview(data)["left_out"]
    assert {"file": "notes.txt", "pictures": 0, "reason": left["notes.txt"].reason} in found
    (tmp_path / "cache").mkdir()
    for _ in range(2):
        cached = load(tmp_path / "fer2013.csv", cache=tmp_path / "cache")
    assert cached.left_out == [] and cached.classes == EMOTIONS


def test_many_files_left_out_for_one_reason_are_named_together(tmp_path):
    (tmp_path / "fer2013.csv").write_text(CSV)
    (tmp_path / "more").mkdir()
    for i in range(30):
        (tmp_path / "more" / f"{i}.h5").write_bytes(b"\x89HDF\r\n")
    data = load(tmp_path)
    assert [left.file for left in data.left_out] == ["more"]
    assert "30 files" in data.left_out[0].reason


# ---- pictures with a table, arrays, shards -----------------------------------------------


@pytest.mark.parametrize("head", ["image,label", "Image Name;Emotion", None])
def test_labels_in_a_table_beside_pictures(tmp_path, head):
    separator = ";" if head and ";" in head else ","
    for split in ("train", "test"):
        rows = range(60) if split == "train" else range(60, N)
        table = [] if head is None else [head]
        for i in rows:
            put(tmp_path / split / f"{i:03}.png", i)
            table.append(f"{i:03}.png{separator}{EMOTIONS[LABELS[i]]}")
        (tmp_path / f"{split}_labels.csv").write_text("\n".join(table) + "\n")
    split = np.where(np.arange(N) < 60, "train", "test")
    order = np.argsort([f"{s}/{i:03}.png" for i, s in enumerate(split)])
    data = load(tmp_path)
    assert np.array_equal(data.images, IMAGES[order])
    assert np.array_equal(data.labels, LABELS[order])
    assert np.array_equal(data.split, split[order])


def test_names_without_a_picture_and_pictures_without_a_name(tmp_path):
    for i in range(60):
        put(tmp_path / "images" / f"{i:03}.png", i)
    table = [f"{i:03}.png,{EMOTIONS[LABELS[i]]}" for i in range(1, 61)]
    (tmp_path / "labels.csv").write_text("image,label\n" + "\n".join(table) + "\n")
    with pytest.warns(UserWarning, match="row 60: no picture"):
        data = load(tmp_path)
    assert len(data) == 59 and accounted(data) == 61


def test_ferplus_folders(tmp_path):
    for folder, rows in (("FER2013Train", range(60)), ("FER2013Valid", range(60, N))):
        table = []
        for i in rows:
            put(tmp_path / folder / f"fer{i:07}.png", i)
            votes = [0] * 10
            votes[[4, 5, 6, 1, 3, 2, 0][LABELS[i]]] = 8
            votes[7] = 2
            if i == 0:
                votes = [0] * 8 + [0, 10]  # no face
            if i == 1:
                votes = [0] * 7 + [10, 0, 0]  # contempt
            table.append(f'fer{i:07}.png,"(0, 0, 48, 48)",' + ",".join(map(str, votes)))
        (tmp_path / folder / "label.csv").write_text("\n".join(table) + "\n")
    data = load(tmp_path)
    assert data.classes == (*EMOTIONS, "contempt") and data.votes.shape == (N - 1, 10)
    assert data.labels[0] == 7 and np.array_equal(data.labels[1:], LABELS[2:])
    assert np.array_equal(data.split, np.where(np.arange(1, N) < 60, "train", "val"))
    assert accounted(data) == N


def test_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, emotion=LABELS, usage=USAGE)
    check(load(tmp_path / "a.npz"))
    floats = (IMAGES / 255).astype("float32")[..., None]
    names = np.array(EMOTIONS)[LABELS]
    np.savez_compressed(tmp_path / "b.npz", X=floats, y=names, split=SPLIT)
    check(load(tmp_path / "b.npz"))
    folder = tmp_path / "c"
    folder.mkdir()
    for split in ("train", "val", "test"):
        np.save(folder / f"X_{split}.npy", IMAGES[split == SPLIT].reshape(-1, 2304))
        np.save(folder / f"y_{split}.npy", np.eye(7)[LABELS[split == SPLIT]])
    check(load(folder))
    np.savez(tmp_path / "d.npz", a=IMAGES, b=LABELS)
    with pytest.raises(ValueError, match=r"(?s)d.npz/a.npy.*X_train and y_train"):
        load(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", x=IMAGES, y=LABELS[:-1])
    with pytest.raises(ValueError, match="84 pictures, and labels"):
        load(tmp_path / "e.npz")


def test_webdataset(tmp_path):
    for split in ("train", "test"):
        members = {}
        for i in np.flatnonzero(np.isin(SPLIT, ["train", "val"]) == (split == "train")):
            file = io.BytesIO()
            Image.fromarray(IMAGES[i]).save(file, "webp", lossless=True)
            members |= {f"{i:06}.webp": file.getvalue(), f"{i:06}.cls": b"%d" % LABELS[i]}
        (tmp_path / f"fer-{split}-000.tar").write_bytes(tar(**members))
    with pytest.raises(ValueError, match=r"(?s)numbers 0, 1.*labels='fer2013'"):
        load(tmp_path)
    data = load(tmp_path, labels="fer2013")
    assert len(data) == N and accounted(data) == N and data.splits == ("train", "test")
    at = [int(name[-11:-5]) for name in data.names]
    assert np.array_equal(data.labels, LABELS[at])


def test_parquet_of_hugging_face(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    names = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"]
    for split in ("train", "validation"):
        rows = []
        for i in np.flatnonzero((SPLIT == "train") == (split == "train")):
            file = io.BytesIO()
            Image.fromarray(IMAGES[i]).save(file, "png")
            rows.append({"image": {"bytes": file.getvalue(), "path": None},
                         "label": names.index(EMOTIONS[LABELS[i]])})  # fmt: skip
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = pa.Table.from_pylist(rows)
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
        parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    check(load(tmp_path), np.where(SPLIT == "train", "train", "val"))


# ---- labels are the data's ---------------------------------------------------------------


def by_name(root, names, n=8):
    for split in ("train", "test"):
        for k, name in enumerate(names):
            for j in range(n):
                put(root / split / name / f"{j}.png", (7 * j + k) % N)


def test_three_emotions_are_three_classes(tmp_path):
    by_name(tmp_path, ["Sadness", "happy", "neutral"])
    data = load(tmp_path)
    assert data.classes == ("happy", "sad", "neutral") and set(data.labels) == {0, 1, 2}


def test_own_labels_and_contempt(tmp_path):
    by_name(tmp_path / "own", ["Focused", "bored", "happy"])
    assert load(tmp_path / "own").classes == ("happy", "bored", "focused")
    by_name(tmp_path / "ck", ["anger", "contempt", "surprise"])
    data = load(tmp_path / "ck")
    assert data.classes == ("angry", "surprise", "contempt")
    clean, report = cleaning.clean(data)
    assert clean.classes == data.classes and set(report.removed["label"]) <= set(data.classes)
    assert sources.describe(data).index.tolist() == [*data.classes, "all"]


def test_labels_called_as_what_tables_say(tmp_path):
    by_name(tmp_path, ["all", "left", "emotion"])
    data = load(tmp_path)
    assert sources.describe(data).index.tolist() == [*data.classes, "all pictures"]
    splits = cleaning.overview(data)["splits"]
    assert all(counts.keys() == {"all", "left", "emotion"} for counts in splits.values())
    assert sum(sum(counts.values()) for counts in splits.values()) == len(data)


def test_numbers_as_folders_are_never_guessed(tmp_path):
    by_name(tmp_path, [str(number) for number in RAFDB])
    with pytest.raises(ValueError) as error:
        load(tmp_path)
    for part in ("1 surprise", "1 happy", "labels='rafdb'", "labels='affectnet'", "--labels"):
        assert part in str(error.value)
    data = load(tmp_path, labels="rafdb")
    assert data.classes == EMOTIONS
    at = np.array([name.split("/")[1] == "1" for name in data.names])
    assert (data.labels[at] == EMOTIONS.index("surprise")).all()
    own = load(tmp_path, labels={**{str(i): "calm" for i in range(1, 7)}, "7": None})
    assert own.classes == ("calm",) and accounted(own) == len(data)


def test_merging_and_leaving_out(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text(CSV)
    what = {"angry": "negative", "Disgust": "negative", "fear": "negative", "sad": "negative",
            "surprise": None}  # fmt: skip
    (tmp_path / "labels.json").write_text(json.dumps(what))
    data = load(path, labels=tmp_path / "labels.json")
    assert data.classes == ("happy", "neutral", "negative")
    assert (data.labels == 2).sum() == np.isin(LABELS, [0, 1, 2, 4]).sum()
    assert accounted(data) == N and data.left_out[0].pictures == (LABELS == 5).sum()
    first = load(path, labels=what, cache=tmp_path / "c")
    assert first.fingerprint != load(path, cache=tmp_path / "c").fingerprint
    with pytest.raises(ValueError, match="no numbering.*fer2013, rafdb"):
        load(path, labels="rafbd")


@pytest.mark.parametrize("text", ['"bored"', "null", "[]", "{}", '{"angry": " "}', '{"angry": 1}'])
def test_a_file_of_labels_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ValueError, match="wanted is old name to class"):
        labels.mapping(tmp_path / "labels.json")


def test_rafdb_as_published(tmp_path):
    table = []
    for i in range(N):
        split = "train" if i < 60 else "test"
        put(tmp_path / f"basic/Image/aligned/{split}_{i:05}_aligned.jpg", i, 100)
        put(tmp_path / f"basic/Image/original/{split}_{i:05}.jpg", i, 130)
        number = next(n for n, name in RAFDB.items() if name == EMOTIONS[LABELS[i]])
        table.append(f"{split}_{i:05}.jpg {number}")
    (tmp_path / "basic/EmoLabel").mkdir()
    (tmp_path / "basic/EmoLabel/list_patition_label.txt").write_text("\n".join(table) + "\n")
    data = load(tmp_path)
    assert len(data) == N and data.classes == EMOTIONS and data.splits == ("train", "test")
    at = [int(name[-17:-12]) for name in data.names]
    assert np.array_equal(data.labels, LABELS[at]) and accounted(data) == 2 * N


def test_affectnet_as_published(tmp_path):
    head = ("subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
            "expression,valence,arousal")  # fmt: skip
    table = [head]
    for i in range(N):
        put(tmp_path / f"images/{i % 3}/{i}.jpg", i, 224)
        table.append(f"{i % 3}/{i}.jpg,0,0,224,224,1.5;2.5,{i % 11},0.1,-0.2")
    (tmp_path / "training.csv").write_text("\n".join(table) + "\n")
    data = load(tmp_path)
    assert data.classes == (*EMOTIONS, "contempt") and data.splits == ("train",)
    at = np.array([int(name.rpartition("/")[2][:-4]) for name in data.names])
    named = np.array(data.classes)[data.labels]
    assert (named[at % 11 == 1] == "happy").all() and (at % 11 < 8).all()
    assert accounted(data) == N


def test_colours():
    names = [f"a rather long name {i}" for i in range(5)]
    found = labels.colours([*EMOTIONS, *names])
    assert list(found) == [*EMOTIONS, *names] and len(set(found.values())) == 12
    assert {name: found[name] for name in EMOTIONS} == labels.PALETTE
    assert len(set(labels.colours([str(i) for i in range(12)]).values())) == 12


# ---- the cases that people reported ------------------------------------------------------

CASES = {
    "containers/arrays": 360,
    "containers/csv_gz": 360,
    "containers/no_suffix": 360,
    "containers/no_suffix_tar": 360,
    "containers/tar_named_csv": 360,
    "containers/html": "a web page",
    "containers/lfs_pointer": "git lfs pull",
    "containers/votes_named_csv": "FER\\+'s votes",
    "tables/float_labels.csv": 360,
    "tables/lists.csv": 360,
    "tables/pixel_columns.csv": 360,
    "tables/semicolon.csv": 360,
    "tables/unit_pixels.csv": 360,
    "tables/usage_testing.csv": 360,
    "in_parts/with_usage": 280,
    "in_parts/without_usage": 280,
    "in_parts/training_testing": 240,
    "other_sets/ck": 981,
    "other_sets/rafdb": "labels='rafdb'",
    "other_sets/affectnet7": "labels='affectnet'",
    "other_sets/three_emotions": 240,
    "other_sets/own_labels": 240,
    "labels_in_a_table/ferplus_folders": 240,
    "labels_in_a_table/names_and_labels": 240,
    "photos/mixed": "without labels",
    "photos/tight_crops": 12,
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case):
    """What shared/cases/make_cases made at `$FERLIB_CASES`: all rows and pictures accounted for."""
    if "FERLIB_CASES" not in os.environ:
        pytest.skip("set $FERLIB_CASES to what shared/cases/make_cases made")
    source, wanted = Path(os.environ["FERLIB_CASES"], case), CASES[case]
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=f"(?s){wanted}"):
            load(source)
        return
    data = load(source)
    assert len(data) == accounted(data) == wanted
