"""What people have on their disks, as they have it: each gives the right pictures and labels.

Every picture is stored without loss, so what was read is compared by its bytes.
"""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferlib import archives, sources, tables
from ferlib.labels import EMOTIONS, NUMBERINGS

N = 84
IMAGES = np.random.default_rng(3).integers(0, 256, (N, 48, 48), np.uint8)
LABELS = np.arange(N) % 7
NAMES = np.array(EMOTIONS)[LABELS]
SPLIT = np.repeat(["train", "val", "test"], [56, 14, 14])
USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
SITUATIONS = []


def situation(**wanted):
    """Registers what makes an input; wanted are rows, splits, options and others of `check`."""

    def register(make):
        SITUATIONS.append(pytest.param(make, wanted, id=make.__name__))
        return make

    return register


def png(i, *, grey=True) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(IMAGES[i])
    (picture if grey else picture.convert("RGB")).save(file, "png", compress_level=1)
    return file.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pixels(i) -> str:
    return " ".join(map(str, IMAGES[i].ravel()))


def row(i) -> str:
    return f"{LABELS[i]},{pixels(i)},{USAGE[SPLIT[i]]}\n"


def number(i, numbering) -> int:
    return NUMBERINGS[numbering].index(NAMES[i])


HEAD = "emotion,pixels,Usage\n"
ROWS = [row(i) for i in range(N)]

# ---- tables ------------------------------------------------------------------------------


@situation()
def rows_of_many_files_with_their_headers(root):
    put(root / "fer.csv", HEAD + HEAD.join("".join(ROWS[at : at + 6]) for at in range(0, N, 6)))


@situation()
def excel_says_its_separator(root):
    put(root / "fer.csv", "sep=;\n" + (HEAD + "".join(ROWS)).replace(",", ";"))


@situation()
def remarks_before_the_header(root):
    put(root / "fer.csv", "# exported 2021-03-04\n\n# by me\n" + HEAD + "".join(ROWS))


@situation()
def separators_at_the_end_of_lines(root):
    put(root / "fer.csv", HEAD + "".join(line.replace("\n", ",,\n") for line in ROWS))


@situation()
def pandas_index_twice_and_2304_columns(root):
    head = "Unnamed: 0.1,Unnamed: 0,person," + ",".join(f"px_{k}" for k in range(2304)) + ",emotion"
    rows = [f"{i},{i},{i % 9},{pixels(i).replace(' ', ',')},{LABELS[i]}" for i in range(N)]
    put(root / "fer.csv", "\n".join([head, *rows]) + "\n")
    return {"splits": {""}}


@situation()
def splits_in_other_words(root):
    words = {"train": "Train Set", "val": "validate", "test": "TST"}
    put(root / "fer.csv", HEAD + "".join(f"{LABELS[i]},{pixels(i)},{words[SPLIT[i]]}\n"
                                         for i in range(N)))  # fmt: skip


@situation(
    options={"labels": {"froh": "happy", "wütend": None, **{x: x for x in EMOTIONS}}}, rows=72
)
def labels_in_an_old_encoding(root):
    names = np.where(LABELS == 3, "froh", np.where(LABELS == 0, "wütend", NAMES))
    rows = [f"{names[i]},{pixels(i)},{USAGE[SPLIT[i]]}\n" for i in range(N)]
    put(root / "fer.csv", (HEAD + "".join(rows)).encode("cp1252"))


@situation()
def json_lines(root):
    rows = [{"emotion": int(LABELS[i]), "pixels": pixels(i), "Usage": USAGE[SPLIT[i]]}
            for i in range(N)]  # fmt: skip
    put(root / "fer.jsonl", "\n".join(map(json.dumps, rows)))


@situation()
def json_list_with_lists_of_pixels(root):
    rows = [{"emotion": NAMES[i], "pixels": IMAGES[i].tolist(), "split": SPLIT[i]}
            for i in range(N)]  # fmt: skip
    put(root / "fer.json", json.dumps(rows))


def frame():
    import pandas as pd

    usage = [USAGE[split] for split in SPLIT]
    return pd.DataFrame({"emotion": LABELS, "pixels": list(map(pixels, range(N))), "Usage": usage})


@situation()
def json_of_pandas_by_column(root):
    put(root / "fer.json", frame().to_json())


@situation()
def json_of_pandas_in_three_parts(root):
    put(root / "fer.json", frame().to_json(orient="split"))


@situation()
def numbers_with_a_decimal_comma(root):
    rows = [f"{LABELS[i]},0;{pixels(i)};{USAGE[SPLIT[i]]}\n" for i in range(N)]
    put(root / "fer.csv", HEAD.replace(",", ";") + "".join(rows))


# ---- tables of names ---------------------------------------------------------------------


def by_name(root, name=lambda i: f"{i:03}.png", folder="images", **how):
    for i in range(N):
        put(root / folder / name(i), png(i, **how))


@situation()
def windows_paths_of_another_machine(root):
    rows = ["path,emotion"]
    for i in range(N):
        inside = f"{SPLIT[i]}/{NAMES[i]}/{i // 7}.png"  # names that many folders have
        put(root / "faces" / inside, png(i))
        rows.append("C:\\Users\\me\\fer\\" + inside.replace("/", "\\") + f",{NAMES[i]}")
    put(root / "labels.csv", "\r\n".join(rows))


@situation(splits={""})
def pictures_and_their_table_in_one_folder(root):
    by_name(root, folder=".")
    put(root / "labels.txt", "\n".join(f"{i:03}.png {NAMES[i]}" for i in range(N)))


@situation(splits={""})
def names_without_suffix_and_in_capitals(root):
    by_name(root, lambda i: f"Face_{i:03}.PNG")
    rows = [f"FACE_{i:03};{NAMES[i].upper()}" for i in range(N)]
    put(root / "labels.csv", "\n".join(["image_id;Expression", *rows]))


@situation(splits={""})
def one_column_for_each_emotion(root):
    by_name(root, lambda i: f"my face {i:03}.png")
    rows = [f"my face {i:03}.png," + ",".join(map(str, np.eye(7, dtype=int)[LABELS[i]]))
            for i in range(N)]  # fmt: skip
    put(root / "_classes.csv", "\n".join(["filename, " + ", ".join(EMOTIONS), *rows]))


@situation()
def metadata_of_hugging_face(root):
    for split in USAGE:
        rows = [i for i in range(N) if SPLIT[i] == split]
        lines = [json.dumps({"file_name": f"{i}.png", "label": NAMES[i]}) for i in rows]
        put(root / split / "metadata.jsonl", "\n".join(lines))
        for i in rows:
            put(root / split / f"{i}.png", png(i))


@situation(splits={""})
def one_json_object_of_names(root):
    by_name(root)
    put(root / "labels.json", json.dumps({f"images/{i:03}.png": NAMES[i] for i in range(N)}))


@situation(splits={"train", "test"}, options={"labels": "rafdb"})
def rafdb_as_kaggle_has_it(root):
    for split in ("train", "test"):
        rows = [i for i in range(N) if (SPLIT[i] == "train") == (split == "train")]
        told = [f"{split}_{i:05}_aligned.jpg,{number(i, 'rafdb')}" for i in rows]
        put(root / f"{split}_labels.csv", "\n".join(["image,label", *told]))
        for i in rows:
            path = f"DATASET/{split}/{number(i, 'rafdb')}/{split}_{i:05}_aligned.jpg"
            put(root / path, png(i, grey=False))


@situation(splits={""})
def expw_with_boxes(root):
    lines = []
    for i in range(0, N, 2):  # two faces in a photo
        photo = np.full((60, 120), 7, np.uint8)
        photo[5:53, 10:58], photo[9:57, 70:118] = IMAGES[i], IMAGES[i + 1]
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "png")
        put(root / "image" / "origin" / f"{i}_actor.jpg", file.getvalue())
        lines.append(f"{i}_actor.jpg 0 5 10 58 53 22.9362 {LABELS[i]}")
        lines.append(f"{i}_actor.jpg 1 9 70 118 57 38.6 {LABELS[i + 1]}")
    put(root / "label" / "label.lst", "\n".join(lines) + "\n")


# ---- labels in a file beside, or in the file's name --------------------------------------


@situation(splits={"train", "val"})
def affectnet_annotations(root):
    for i in range(N):
        split = "train" if SPLIT[i] == "train" else "val"
        folder = root / f"{split}_set"
        at = i if split == "train" else i - 56  # both begin at 0
        put(folder / "images" / f"{at}.jpg", png(i, grey=False))
        for what, value in (
            ("exp", str(number(i, "affectnet"))),
            ("val", "0.3"),
            ("lnd", [1.0] * 9),
        ):
            (folder / "annotations").mkdir(exist_ok=True)
            np.save(folder / "annotations" / f"{at}_{what}.npy", value)


@situation(splits={""}, classes=EMOTIONS, left=3 * N)
def ck_as_published(root):
    for i in range(N):
        sequence = f"S{5 + i // 4:03}/{i % 4 + 1:03}"
        name = sequence.replace("/", "_")
        for frame in range(1, 4):
            put(root / "cohn-kanade-images" / sequence / f"{name}_{frame:08}.png", png((i + 1) % N))
        put(root / "cohn-kanade-images" / sequence / f"{name}_00000011.png", png(i))
        told = f"   {number(i, 'ck')}.0000000e+00\n"
        put(root / "Emotion" / sequence / f"{name}_00000011_emotion.txt", told)


@situation(options={"labels": {str(k): name for k, name in enumerate(EMOTIONS)}})
def yolo_labels(root):
    for i in range(N):
        put(root / SPLIT[i] / "images" / f"{i}.png", png(i, grey=False))
        put(root / SPLIT[i] / "labels" / f"{i}.txt", f"{LABELS[i]} 0.5 0.5 1 1\n")


@situation()
def yolo_labels_and_their_names(root):
    put(root / "data.yaml", f"train: ../train/images\nnc: 7\nnames: {list(EMOTIONS)}\n")
    yolo_labels(root)


@situation()
def yolo_labels_and_a_list_of_classes(root):
    put(root / "classes.txt", "\r\n".join(EMOTIONS) + "\r\n")
    yolo_labels(root)


@situation(splits={""})
def a_word_in_the_names_of_files(root):
    words = ("Anger", "disgusted", "fear", "Happy", "SAD", "surprise", "neutral")
    by_name(root, lambda i: f"person{i % 5}_{words[LABELS[i]]}-{i}.png")


@situation(splits={""})
def jaffe(root):
    codes = dict(zip(EMOTIONS, ("AN", "DI", "FE", "HA", "SA", "SU", "NE"), strict=True))
    by_name(root, lambda i: f"KA.{codes[NAMES[i]]}{i % 3 + 1}.{i}.tiff", "jaffe")
    put(root / "jaffe" / "README", "Japanese Female Facial Expression")


@situation(splits={""})
def kdef_in_folders_of_people(root):
    codes = dict(zip(EMOTIONS, ("AN", "DI", "AF", "HA", "SA", "SU", "NE"), strict=True))
    for i in range(N):
        who = f"AF{i // 7 + 1:02}"
        put(root / "KDEF" / who / f"{who}{codes[NAMES[i]]}{('S', 'HL')[i % 2]}.JPG", png(i))
    put(root / "KDEF" / "AF01" / "cover.png", png(0))
    return {"left": 1}


def test_own_folders_go_before_the_names_of_files(tmp_path):
    for i in range(N):
        mood = "positive" if NAMES[i] in ("happy", "surprise") else "other"
        put(tmp_path / mood / f"AF{i:02}ANS.JPG", png(i))
    assert sources.load(tmp_path, cache=False).classes == ("other", "positive")


@situation(splits={""})
def rafd(root):
    words = dict(zip(EMOTIONS, ("angry", "disgusted", "fearful", "happy", "sad", "surprised",
                                "neutral"), strict=True))  # fmt: skip
    by_name(root, lambda i: f"Rafd090_{i:02}_Caucasian_female_{words[NAMES[i]]}_frontal.jpg")


# ---- folders and archives ----------------------------------------------------------------


def in_folders(i, split="{split}", suffix="png") -> str:
    return f"{split.format(split=SPLIT[i])}/{NAMES[i]}/{i:03}.{suffix}"


@situation()
def folders_with_what_systems_leave(root):
    for i in range(N):
        path = root / in_folders(i, suffix="PNG")
        put(path, png(i))
        put(path.with_name(f"._{path.name}"), b"\0\5\x16\7" + bytes(60))
        put(path.parent / ".ipynb_checkpoints" / f"{i:03}-checkpoint.png", png(i))
        put(path.parent / "@eaDir" / path.name / "SYNOPHOTO_THUMB_M.jpg", png(i))
        put(path.parent / "Thumbs.db", b"\xd0\xcf\x11\xe0" + bytes(600))
        put(path.parent / ".DS_Store", b"\0\0\0\1Bud1")


@situation()
def folders_spelled_otherwise(root):
    words = {"train": "train_images", "val": "ValidationSet", "test": "fer2013_test"}
    for i in range(N):
        put(root / words[SPLIT[i]] / f"{LABELS[i]}_{NAMES[i].title()}" / f"{i}.png", png(i))


@situation()
def folders_with_their_number_of_pictures(root):
    for i in range(N):
        put(root / SPLIT[i] / f"{NAMES[i].title()} (958 images)" / f"{i}.png", png(i))


@situation()
def a_folder_for_each_clip_in_those_of_the_labels(root):
    for i in range(N):
        put(root / SPLIT[i] / f"{NAMES[i]}_faces" / f"clip {i % 3}" / f"{i}.png", png(i))


@situation()
def splits_in_the_folders_of_labels(root):
    for i in range(N):
        put(root / "fer" / NAMES[i] / SPLIT[i] / f"{i}.png", png(i))


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@situation()
def a_zip_for_each_split(root):
    for split in USAGE:
        rows = [i for i in range(N) if SPLIT[i] == split]
        put(root / f"{split}.ZIP", zipped({f"{NAMES[i]}/{i:03}.png": png(i) for i in rows}))


@situation()
def a_zip_of_a_mac_in_a_tar(root):
    members = {in_folders(i): png(i) for i in range(N)}
    members |= {f"__MACOSX/{name}": b"\0\5\x16\7" for name in members}
    content = zipped(members)
    with tarfile.open(root / "all.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("archive/fer.zip")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


@situation(left=N)
def a_zip_beside_what_was_unpacked_from_it(root):
    members = {in_folders(i): png(i) for i in range(N)}
    put(root / "fer.zip", zipped(members))
    for name, content in members.items():
        put(root / "fer" / name, content)


@situation()
def paths_of_windows_in_a_zip(root):
    members = {"fer\\" + in_folders(i).replace("/", "\\"): png(i) for i in range(N)}
    put(root / "fer.zip", zipped(members))


@situation(splits={"train", "val"})
def thousands_of_small_folders(root):
    rows = []
    for i in range(3 * N):
        put(root / "people" / f"{i:04}" / "1" / "face.png", png(i % N))
        rows.append(f"people/{i:04}/1/face.png,{NAMES[i % N]},{'dev' if i % 2 else 'train'}")
    put(root / "list.csv", "\n".join(["file,label,split", *rows]))
    return {"rows": 3 * N, "any_split": True}


# ---- arrays ------------------------------------------------------------------------------


@situation()
def arrays_of_a_split_each(root):
    for split in USAGE:
        at = split == SPLIT
        np.savez(root / f"{split}.npz", x=IMAGES[at, None], y=LABELS[at])  # the channel first


@situation(splits={""}, options={"labels": "fer2013"})
def arrays_in_colour_with_the_channels_first(root):
    np.save(root / "images.npy", np.repeat(IMAGES[:, None], 3, axis=1) / 255)
    np.save(root / "labels.npy", LABELS[:, None].astype(float))


@situation(splits={"train"})
def arrow_of_hugging_face(root):
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    names = [*EMOTIONS, "contempt"]
    rows = [{"image": {"bytes": png(i), "path": None}, "label": int(LABELS[i])} for i in range(N)]
    rows.append({"image": {"bytes": png(0), "path": None}, "label": -1})  # none is known
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(about)})
    (root / "train").mkdir()
    path = root / "train" / "data-00000-of-00001.arrow"
    with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return {"faults": 1}


@situation()
def parquet_with_text(root):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pandas as pd

    columns = {"emotion": LABELS, "pixels": [pixels(i) for i in range(N)],
               "Usage": [USAGE[split] for split in SPLIT]}  # fmt: skip
    pd.DataFrame(columns).to_parquet(root / "fer2013.parquet")


@pytest.mark.parametrize(("make", "wanted"), SITUATIONS)
@pytest.mark.filterwarnings("ignore:.*faults:UserWarning")
def test_situation(tmp_path, make, wanted):
    wanted = wanted | (make(tmp_path) or {})
    truth = {IMAGES[i].tobytes(): (NAMES[i], SPLIT[i]) for i in range(N)}
    data = sources.load(tmp_path, cache=False, **wanted.get("options", {}))
    splits = wanted.get("splits", set(USAGE))
    assert set(data.split) == splits
    for image, label, split in zip(data.images, data.labels, data.split, strict=True):
        name, home = truth[image.tobytes()]
        assert data.classes[label] == name
        if splits == set(USAGE):
            assert split == home
        elif splits > {"train"} and not wanted.get("any_split"):
            assert (split == "train") == (home == "train")
    assert len(data) == wanted.get("rows", N)
    assert len(data.faults) == wanted.get("faults", 0), data.faults
    left = sum(left.pictures for left in data.left_out)
    assert left == wanted.get("left", N - min(N, len(data))), data.left_out


# ---- what cannot be read is said ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("fer.mat", b"MATLAB 5.0 MAT-file" + bytes(200), "MATLAB file: save its arrays"),
        ("fer.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5.*np.savez"),
        ("fer.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(99), "Zstandard"),
        ("fer.db", b"SQLite format 3\0" + bytes(99), "SQLite"),
        ("fer.parquet", b"PAR1" + bytes(99), "parquet.*(damaged|pyarrow)"),
        ("X_train.npy", b"\x93NUMPY\1\0v\0{'descr'", "X_train.npy cannot be read"),
        ("fer.csv", "emotion,pixels\n" + "3,[ 70  80 ... 106]\n" * 9, "9 of 9.*4 pixels instead"),
    ],
)
def test_what_is_there_is_named(tmp_path, name, content, said):
    put(tmp_path / name, content)
    with pytest.raises(ValueError, match=f"(?s){said}"):
        sources.load(tmp_path, cache=False)


@pytest.mark.parametrize("names", [("bored", "focused"), ("happy", "sad", "neutral")])
def test_names_in_the_columns_of_fer2013_are_all_classes_there_are(tmp_path, names):
    rows = [f"{names[i % len(names)]},{pixels(i)}\n" for i in range(N)]
    put(tmp_path / "mine.csv", "emotion,pixels\n" + "".join(rows))
    assert sources.load(tmp_path, cache=False).classes == names


@pytest.mark.parametrize(
    "names", ["7", "abc", "[[1], {a: b}]", "null", "[]", "[a, {", "2024-13-45"]
)
def test_names_of_yolo_that_are_none_are_not_taken(tmp_path, names):
    put(tmp_path / "data.yaml", f"names: {names}\n")
    yolo_labels(tmp_path)
    with pytest.raises(ValueError, match="Say what they mean"):
        sources.load(tmp_path, cache=False)


@pytest.mark.parametrize(
    ("make", "name", "content"),
    [
        (affectnet_annotations, "train_set/annotations/3_exp.npy", b"\x93NUMPY\1\0\x05\0{'a':"),
        (ck_as_published, "Emotion/S005/001/S005_001_00000011_emotion.txt", "1e999\n"),
        (yolo_labels, "train/labels/3.txt", "3 . . 1 1\n"),
    ],
)
def test_a_damaged_label_beside_a_picture_is_none(tmp_path, make, name, content):
    make(tmp_path)
    assert (tmp_path / name).exists()
    put(tmp_path / name, content)
    labels = {str(k): emotion for k, emotion in enumerate(EMOTIONS)}
    options = {"labels": labels} if make is yolo_labels else {}
    assert len(sources.load(tmp_path, cache=False, **options)) == N - 1


@pytest.mark.parametrize("text", ['{"data": [[1]], "columns": [1]}', '{"a": {"b": 1}, "c": 2}',
                                  '{"data": [[1, 2]], "columns": ["emotion", "emotion"]}',
                                  '{"data": [[1]], "columns": [{"title": "emotion"}]}',
                                  '{"data": [[1, 2]], "columns": [["a", "b"]]}',
                                  '{"data": 5, "columns": 3}'])  # fmt: skip
def test_json_that_holds_no_pictures_is_named(tmp_path, text):
    put(tmp_path / "x.json", text)
    with pytest.raises(ValueError, match=r"There is: x\.json"):
        sources.load(tmp_path, cache=False)


def test_a_table_names_no_file_as_the_content_of_a_picture(tmp_path):
    put(tmp_path / "elsewhere" / "private.png", png(0))
    image = {"bytes": str(tmp_path / "elsewhere" / "private.png")}
    put(tmp_path / "data" / "x.json", json.dumps([{"image": image, "label": "happy"}] * 3))
    with pytest.raises(ValueError, match="row 1: an empty file"):
        sources.load(tmp_path / "data", cache=False)


@pytest.mark.parametrize(("held", "said"), [
    (b"<html>", "a web page, perhaps a login"),
    (png(0)[:99], "cannot identify|truncated|broken"),
    (b"text", "UnidentifiedImageError: cannot identify image file its format"),
])  # fmt: skip
def test_a_damaged_picture_in_a_table_is_named_as_one_in_a_file(held, said):
    file = archives.File("x.parquet", lambda: io.BytesIO(), 0)
    records = lambda: iter([({"bytes": held}, "happy")])  # noqa: E731
    table = tables.Table(file, ["image", "label"], {"pixels": [0], "label": [1]}, records)
    (fault,) = tables.rows_of(table)
    assert re.search(said, fault.problem) and "0x" not in fault.problem


@pytest.mark.parametrize("content", [b"x" * 2**18 + b"\n", b"\x0c\n", b"one\rtwo\nthree\n"])
def test_a_text_that_is_no_table_is_left_out(tmp_path, content):
    folders_spelled_otherwise(tmp_path)
    put(tmp_path / "notes.txt", content)
    left = sources.load(tmp_path, cache=False).left_out
    assert [each.file for each in left] == ["notes.txt"]


def test_a_quote_that_is_missing_in_the_smaller_of_two_tables_is_named(tmp_path):
    put(tmp_path / "fer.csv", "emotion,pixels\n" + "".join(f"3,{pixels(i)}\n" for i in range(9)))
    put(tmp_path / "quoted.csv", f'emotion,pixels\n3,"{pixels(0)}"\n3,"{pixels(1)}\n')
    with pytest.raises(ValueError, match=r"quoted.csv: .*a quote is missing"):
        sources.load(tmp_path, cache=False)


def test_true_is_not_the_one_of_a_table_before():
    assert [tables.text_of(cell) for cell in (True, 1.0, 1, 0.0, False)] == [
        "True", "1", "1", "0", "False",
    ]  # fmt: skip


def test_what_is_wrong_with_a_file_is_said_once(tmp_path):
    np.save(tmp_path / "X.npy", IMAGES / 127.5 - 1)
    with pytest.raises(ValueError) as error:
        sources.load(tmp_path, cache=False)
    assert str(error.value).count("X.npy") == 1
    assert "no labels" not in str(error.value)


def test_pictures_without_labels_are_named(tmp_path):
    put(tmp_path / "test.csv", "pixels\n" + "".join(f"{pixels(i)}\n" for i in range(9)))
    with pytest.raises(ValueError, match="test.csv: no labels"):
        sources.load(tmp_path, cache=False)


def test_numbers_of_yolo_are_not_guessed(tmp_path):
    yolo_labels(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)numbers 0, 1.*labels='affectnet'"):
        sources.load(tmp_path, cache=False)


def test_a_box_outside_of_its_picture_is_a_fault(tmp_path):
    expw_with_boxes(tmp_path)
    path = tmp_path / "label" / "label.lst"
    path.write_text(path.read_text().replace(" 5 10 58 53 ", " 500 10 58 530 ", 1))
    with pytest.warns(UserWarning, match=r"0_actor.jpg, row 1: its box .* outside"):
        assert len(sources.load(tmp_path, cache=False)) == N - 1
