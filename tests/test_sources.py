"""Every shape of source gives the same data, and nothing bad passes silently."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferlib import archives, pictures, sources
from ferlib.drawn import draw
from ferlib.labels import EMOTIONS, FERPLUS, ferplus_labels

ROOT = Path(__file__).resolve().parents[1]
N = 60
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (N, 48, 48), np.uint8)
LABELS = np.arange(N) % 7
USAGE = np.array(["Training"] * 40 + ["PublicTest"] * 10 + ["PrivateTest"] * 10)
SPLIT = np.array(["train"] * 40 + ["val"] * 10 + ["test"] * 10)


def text(image) -> str:
    return " ".join(map(str, image.ravel()))


def rows(form: str = "{e},{p},{u}", n: int = N) -> list[str]:
    return [form.format(e=LABELS[i], p=text(IMAGES[i]), u=USAGE[i]) for i in range(n)]


def write(path: Path, header: str = "emotion,pixels,Usage", lines=None, end="\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header, *(rows() if lines is None else lines)]) + end
    path.write_text(text, encoding="utf-8")
    return path


def folders(root: Path, name: str = "{split}/{label}/{usage}_{i:08d}.png", **save) -> Path:
    for i in range(N):
        split = "train" if USAGE[i] == "Training" else "test"
        label = EMOTIONS[LABELS[i]]
        path = root / name.format(split=split, label=label, usage=USAGE[i], i=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path, **save)
    return root


def pack(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, folder.name)
    return path


def load(source, **options):
    return sources.load(source, **{"cache": False, **options})


def check(data, split=SPLIT):
    assert np.array_equal(data.images, IMAGES) and data.images.dtype == np.uint8
    assert np.array_equal(data.labels, LABELS) and data.labels.dtype == np.int64
    assert np.array_equal(data.split, split)
    assert len(data.names) == len(data) == N
    assert data.faults == []


# ---- shapes ------------------------------------------------------------------------------


def test_kaggle_csv(tmp_path):
    data = load(write(tmp_path / "fer2013.csv"))
    check(data)
    assert data.title == "fer2013.csv"
    assert data.names[16] == "row 17"
    assert data.votes is None and len(data.unlabelled) == 0
    assert data.splits == ("train", "val", "test") and data.held_out == "test"


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("emotion, Usage, pixels", "{e},{u},{p}"),
        ("\ufeffEmotion,pixels,Usage", "{e},{p},{u}\r"),
        ('"emotion","pixels","Usage"', '{e},"{p}","{u}"'),
        (",emotion,pixels,Usage", "7,{e}, {p} ,{u}"),
    ],
)
def test_other_csv_headers(tmp_path, header, form):
    check(load(write(tmp_path / "icml_face_data.csv", header, rows(form))))


def test_csv_without_usage(tmp_path):
    data = load(write(tmp_path / "fer.csv", "emotion,pixels", rows("{e},{p}"), end=""))
    check(data, np.full(N, ""))
    assert data.splits == ()


def test_training_and_publictest_have_no_test_split(tmp_path):
    data = load(write(tmp_path / "fer.csv", lines=rows(n=50)))
    assert data.splits == ("train", "val") and data.held_out == "val"


def test_challenge_folder(tmp_path):
    write(tmp_path / "train.csv", "emotion,pixels", rows("{e},{p}", 40))
    write(tmp_path / "test.csv", "pixels", [text(image) for image in IMAGES[40:]])
    write(tmp_path / "icml_face_data.csv", "emotion, Usage, pixels", rows("{e},{u},{p}"))
    write(tmp_path / "fer2013" / "fer2013.csv")
    (tmp_path / "fer2013" / "README").write_text("see the challenge", encoding="utf-8")
    pack(tmp_path / "fer2013", tmp_path / "fer2013.tar.gz")
    shutil.rmtree(tmp_path / "fer2013")
    data = load(tmp_path)
    check(data)
    assert np.array_equal(data.unlabelled, IMAGES[40:])


def test_fullest_file_may_lie_in_an_archive(tmp_path):
    write(tmp_path / "train.csv", "emotion,pixels", rows("{e},{p}", 40))
    write(tmp_path / "fer2013" / "fer2013.csv")
    pack(tmp_path / "fer2013", tmp_path / "fer2013.tar.gz")
    shutil.rmtree(tmp_path / "fer2013")
    check(load(tmp_path))


@pytest.mark.parametrize("form", ["{split}", "images/{split}", "a/b/{split}/{split}"])
def test_folders_restore_official_split_and_order(tmp_path, form):
    data = load(folders(tmp_path, form + "/{label}/{usage}_{i}.png"))
    check(data)
    assert data.names[0].endswith("angry/Training_0.png")


def test_folders_with_other_names_and_spellings(tmp_path):
    spelled = ["ANGER", "Disgust", "fear", "Happiness", "sad", "5_Surprise", "Neutral"]
    spell = dict(zip(EMOTIONS, spelled, strict=True))
    part = {"train": "Train", "val": "Validation", "test": "TEST"}
    for i in range(N):
        path = tmp_path / "images" / part[SPLIT[i]] / spell[EMOTIONS[LABELS[i]]] / f"im{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path)
    data = load(tmp_path)
    found = [int(name[-7:-4]) for name in data.names]
    assert sorted(found) == list(range(N))
    assert np.array_equal(data.images, IMAGES[found])
    assert np.array_equal(data.labels, LABELS[found])
    assert np.array_equal(data.split, SPLIT[found])


def test_one_folder_of_label_folders(tmp_path):
    data = load(folders(tmp_path / "fer", "{label}/{i:03d}.png"))
    assert len(data) == N and set(data.split) == {""} and data.title == "fer"
    assert np.bincount(data.labels).tolist() == np.bincount(LABELS).tolist()


def test_doubled_folders_count_once(tmp_path):
    folders(tmp_path / "images")
    folders(tmp_path / "images" / "images")
    check(load(tmp_path))


def test_pictures_of_a_split_without_labels_are_for_prediction(tmp_path):
    folders(tmp_path, "train/{label}/{i}.png")
    (tmp_path / "test").mkdir()
    Image.fromarray(IMAGES[3]).save(tmp_path / "test" / "x.png")
    data = load(tmp_path)
    assert len(data) == N and data.splits == ("train",)
    assert np.array_equal(data.unlabelled, IMAGES[3:4])


@pytest.mark.parametrize(
    ("ending", "mode"),
    [(".jpg", "L"), (".jpeg", "RGB"), (".webp", "RGB"), (".PNG", "RGBA"), (".png", "I;16")],
)
def test_pictures_of_any_size_and_mode(tmp_path, ending, mode):
    ramp = np.repeat(np.linspace(20, 220, 96), 96).reshape(96, 96)
    picture = Image.fromarray(ramp.astype(np.uint8))
    picture = Image.fromarray((ramp * 257).astype(np.uint16)) if mode == "I;16" else picture
    for label in ("happy", "sad"):
        path = tmp_path / label / f"a{ending}"
        path.parent.mkdir()
        (picture if mode == "I;16" else picture.convert(mode)).save(path)
    data = load(tmp_path)
    assert data.images.shape == (2, 48, 48)
    assert np.abs(data.images[0].mean(axis=1) - np.linspace(21, 219, 48)).max() < 4


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("shape", ["csv", "folders"])
def test_archives(tmp_path, suffix, shape):
    inside = tmp_path / "inside" / "deep"
    write(inside / "fer2013.csv") if shape == "csv" else folders(inside)
    (inside / "notes.txt").write_text("not needed", encoding="utf-8")
    path = pack(tmp_path / "inside", tmp_path / f"fer{suffix}")
    shutil.rmtree(tmp_path / "inside")
    check(load(path))
    assert sorted(p.name for p in tmp_path.rglob("*")) == [path.name], "something was extracted"
    check(load(tmp_path))


def test_parts_of_an_archive_come_from_the_archive(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "inside" / f"{split}.csv")
    path = pack(tmp_path / "inside", tmp_path / "fer.zip")
    assert load(path).origin == str(path)
    assert load(tmp_path / "inside").origin == str(tmp_path / "inside")


def test_archive_in_an_archive(tmp_path):
    write(tmp_path / "inside" / "fer2013.csv")
    (tmp_path / "outer").mkdir()
    pack(tmp_path / "inside", tmp_path / "outer" / "fer2013.tar.gz")
    check(load(pack(tmp_path / "outer", tmp_path / "challenge.zip")))


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("evil", ["../evil.csv", "/evil.csv", "a/../../evil.csv", "C:/evil.csv"])
def test_archive_members_outside_are_refused(tmp_path, suffix, evil):
    path = tmp_path / "box" / f"fer{suffix}"
    path.parent.mkdir()
    csv = write(tmp_path / "fer2013.csv").read_bytes()
    bad = csv + (csv.partition(b"\n")[2])  # fuller, to be preferred
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(evil, bad)
            archive.writestr("fer2013.csv", csv)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in ((evil, bad), ("fer2013.csv", csv)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    with pytest.warns(UserWarning, match="1 fault"):
        data = load(path)
    assert len(data) == N
    assert evil in data.faults[0].problem and data.faults[0].file == path.name
    assert not list(tmp_path.rglob("evil*")) and not Path("/evil.csv").exists()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("damage", ["cut", "middle", "start", "empty"])
def test_damaged_archive_is_an_error(tmp_path, suffix, damage):
    path = pack(write(tmp_path / "in" / "fer2013.csv").parent, tmp_path / f"fer2013{suffix}")
    good = bytearray(path.read_bytes())
    at = {"middle": len(good) // 2, "start": 50}.get(damage)
    if at:
        good[at : at + 200] = b"x" * 200
    path.write_bytes({"cut": good[:-2000], "empty": b""}.get(damage, good))
    with pytest.raises(ValueError, match=path.name):
        load(path)


# ---- faults ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("3,1 2 3,Training", "3 pixels instead of 2304"),
        ("3,{p} 7,Training", "2305 pixels"),
        ("3,256{rest},Training", "'256'"),
        ("3,-1{rest},Training", "'-1'"),
        ("3,1.5{rest},Training", "'1.5'"),
        ("3,x{rest},Training", "'x'"),
        ("3,1000{rest},Training", "'1000'"),
        ("7,{p},Training", "'7' is not an emotion"),
        (",{p},Training", "'' is not an emotion"),
        ("3,{p},Train", None),
        ("3,{p},Tra", "unknown Usage 'Tra'"),
        ("3,{p}", "2 columns instead of 3"),
        ("3", "1 columns instead of 3"),
        (",{p},PrivateTest", None),
    ],
)
def test_bad_rows_are_listed_and_left_out(tmp_path, row, problem):
    _, rest = text(IMAGES[0]).split(" ", 1)
    lines = rows()
    lines.insert(16, row.format(p=text(IMAGES[0]), rest=f" {rest}"))
    path = write(tmp_path / "fer2013.csv", lines=lines)
    if problem is None:  # these are good
        data = load(path)
        assert data.faults == [] and len(data) + len(data.unlabelled) == N + 1
        return
    with pytest.warns(UserWarning, match="row 17"):
        data = load(path)
    assert np.array_equal(data.images, IMAGES) and data.names[16] == "row 18"
    assert [(fault.file, fault.row) for fault in data.faults] == [("fer2013.csv", 17)]
    assert problem in data.faults[0].problem


@pytest.mark.parametrize("cut", [5, 20, 3000])
def test_csv_that_ends_in_a_row(tmp_path, cut):
    path = write(tmp_path / "fer2013.csv")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=f"(?s)row {N}: .*ends in this row.*partial=True"):
        load(path)
    with pytest.warns(UserWarning, match=f"row {N}"):
        assert len(load(path, partial=True)) == N - 1


def test_csv_cut_off_between_rows(tmp_path):
    path = write(tmp_path / "fer2013.csv", lines=rows(n=30))
    with pytest.raises(ValueError, match="only rows of Training.*partial=True"):
        load(path)
    assert len(load(path, partial=True)) == 30


def test_unusual_blanks_between_pixels(tmp_path):
    lines = rows()
    lines[0] = lines[0].replace(" ", "  ").replace(",", ", ")
    check(load(write(tmp_path / "fer2013.csv", lines=[*lines[:30], "", *lines[30:], ""])))


def test_many_bad_rows_are_an_error(tmp_path):
    lines = [line if i % 10 else "3,1 2,Training" for i, line in enumerate(rows())]
    with pytest.raises(ValueError, match="(?s)6 of 60.*5 %.*row 1: 2 pixels.*row 11: "):
        load(write(tmp_path / "fer2013.csv", lines=lines))


def test_bad_pictures_are_listed_and_left_out(tmp_path):
    folders(tmp_path, "{split}/{label}/{usage}_{i}.jpg", quality=95)
    victim = tmp_path / "train" / "happy" / "Training_3.jpg"
    victim.write_bytes(victim.read_bytes()[:400])
    (tmp_path / "train" / "contempt").mkdir()
    shutil.copy(tmp_path / "train/sad/Training_4.jpg", tmp_path / "train" / "contempt" / "a.jpg")
    shutil.rmtree(tmp_path / "test" / "disgust")
    (tmp_path / "test" / "disgust").mkdir()
    with pytest.warns(UserWarning, match="2 faults"):
        data = load(tmp_path)
    assert data.classes == (*EMOTIONS, "contempt") and 7 in data.labels
    faults = {fault.file: fault.problem for fault in data.faults}
    assert "truncated" in faults["train/happy/Training_3.jpg"]
    assert "empty" in faults["test/disgust"]
    assert "train/happy/Training_3.jpg" not in data.names


def test_many_bad_pictures_are_an_error(tmp_path):
    folders(tmp_path)
    for path in list(tmp_path.glob("train/*/*.png"))[:5]:
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="(?s)5 of 60.*Training_.*cannot identify"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["nothing.csv", "no/such/folder", "data.zip", "/no/such/place"])
def test_absent_path_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no").mkdir()
    with pytest.raises(FileNotFoundError, match=str(Path(tmp_path, name))):
        load(name)


def test_what_is_no_data_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="every level"):
        load(tmp_path)
    with pytest.raises(ValueError, match="emotion and pixels"):
        load(write(tmp_path / "other.csv", "a,b", ["1,2"]))
    with pytest.raises(ValueError, match="no labelled"):
        load(write(tmp_path / "test.csv", "pixels", [text(IMAGES[0])]))
    with pytest.raises(ValueError, match="0 of 0"):
        load(write(tmp_path / "fer2013.csv", lines=[]))


# ---- FER+ --------------------------------------------------------------------------------


def votes(path: Path, usage=USAGE, labels=LABELS) -> Path:
    column = {label: i for i, label in enumerate(ferplus_labels(EMOTIONS))}
    lines = []
    for i, name in enumerate(usage):
        counts = [0] * 10
        counts[column[labels[i]]] = 9
        counts[9] = i % 3
        lines.append(f"{name},fer{i:07d}.png," + ",".join(map(str, counts)))
    return write(path, "Usage,Image name," + ",".join(FERPLUS), lines)


def test_votes_beside_a_csv_join_by_row(tmp_path):
    path = write(tmp_path / "fer2013.csv")
    votes(tmp_path / "fer2013new.csv")
    for source in (path, tmp_path):
        data = load(source)
        assert data.votes.shape == (N, 10) and data.votes.dtype == np.float32
        assert np.array_equal(data.votes[:, 9], np.arange(N) % 3)
        assert (ferplus_labels(EMOTIONS)[data.votes.argmax(axis=1)] == LABELS).all()
    assert load(path, votes=None).votes is None


def test_votes_keep_to_their_rows_around_a_fault(tmp_path):
    path = write(tmp_path / "fer2013.csv", lines=[*rows()[:5], "3,1 2,Training", *rows()[6:]])
    votes(tmp_path / "fer2013new.csv")
    with pytest.warns(UserWarning, match="row 6"):
        assert load(path).votes[:, 9].tolist() == [i % 3 for i in range(N) if i != 5]


@pytest.mark.parametrize("usage", [USAGE[:-1], USAGE[::-1], np.roll(USAGE, 1)])
def test_votes_of_another_number_or_order_are_refused(tmp_path, usage):
    path = write(tmp_path / "fer2013.csv")
    votes(tmp_path / "fer2013new.csv", usage)
    with pytest.raises(ValueError, match="do not fit .*fer2013.csv.*votes=None"):
        load(path)


def test_votes_in_another_order_of_the_same_split_are_refused(tmp_path):
    labels = np.arange(600) % 7
    pixels = text(np.zeros(2304, int))
    lines = [f"{label},{pixels},Training" for label in labels]
    path = write(tmp_path / "fer2013.csv", lines=lines)
    votes(tmp_path / "fer2013new.csv", ["Training"] * 600, labels)
    assert len(load(path, partial=True).votes) == 600
    votes(tmp_path / "fer2013new.csv", ["Training"] * 600, np.roll(labels, 1))
    with pytest.raises(ValueError, match="only 0% of the labels"):
        load(path, partial=True)


def test_named_votes(tmp_path):
    named = votes(tmp_path / "elsewhere" / "votes.csv")
    assert load(write(tmp_path / "fer2013.csv"), votes=named).votes.shape == (N, 10)
    assert load(folders(tmp_path / "named"), votes=named).votes.shape == (N, 10)
    with pytest.raises(ValueError, match="do not fit"):
        load(folders(tmp_path / "other", "{label}/{i}.png"), votes=named)
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        load(tmp_path / "fer2013.csv", votes=tmp_path / "gone.csv")


# ---- where the data is -------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without data: an empty project, no mount, no network."""

    def fail(handle):
        raise ConnectionError("no network")

    monkeypatch.delenv("FERLIB_DATA", raising=False)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(sources, "project_folder", lambda: tmp_path / "project")
    monkeypatch.setattr(sources, "MOUNTS", (str(tmp_path / "mount*"),))
    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=fail))
    return tmp_path


def test_search_order(nowhere, monkeypatch):
    monkeypatch.setattr("ferlib.drawn.draw", lambda n=21: draw(n))
    with pytest.warns(UserWarning, match="(?s)NO DATA.*no network.*DRAWN FACES"):
        assert sources.load().is_drawn
    hub = types.SimpleNamespace(dataset_download=lambda handle: str(nowhere / "download"))
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    write(nowhere / "download" / "a.csv")
    assert sources.load().title == sources.HANDLE
    write(nowhere / "mount1" / "fer2013" / "b.csv")
    assert sources.load("").title == "b.csv"
    (nowhere / "project" / "data" / "raw").mkdir(parents=True)
    assert sources.load().title == "b.csv"
    write(nowhere / "project" / "data" / "raw" / "c.csv")
    assert sources.load().title == "c.csv"
    monkeypatch.setenv("FERLIB_DATA", str(write(nowhere / "d.csv")))
    assert sources.load().title == "d.csv"
    monkeypatch.setenv("FERLIB_DATA", str(nowhere / "gone.csv"))
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        sources.load()
    assert not sources.load("drawn:70").faults and len(sources.load("drawn:70")) == 70


def test_damaged_data_is_not_passed_over(nowhere):
    write(nowhere / "project" / "data" / "raw" / "fer2013.csv", lines=["3,1 2,Training"])
    with pytest.raises(ValueError, match="1 of 1"):
        sources.load()


def test_kaggle_handle(nowhere, monkeypatch):
    asked = []
    hub = types.SimpleNamespace(dataset_download=lambda h: asked.append(h) or nowhere / "x")
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    folders(nowhere / "x")
    data = load("msambare/fer2013")
    check(data)
    assert asked == ["msambare/fer2013"] == [data.title]


def test_kaggle_failure_names_handle_problem_and_remedy(nowhere):
    with pytest.raises(FileNotFoundError) as error:
        load("msambare/fer2013")
    for part in ("'msambare/fer2013'", "no network", "datasets/msambare/fer2013"):
        assert part in str(error.value)
    folders(nowhere / "hub" / "datasets" / "msambare" / "fer2013" / "versions" / "2")
    (nowhere / "hub" / "datasets" / "msambare" / "fer2013" / "versions" / "1").mkdir()
    check(load("msambare/fer2013"))


# ---- the cache ---------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a source is read rather than its cache opened."""
    seen, unpack = [], archives.unpack
    monkeypatch.setattr(archives, "unpack", lambda *args: seen.append(1) or unpack(*args))
    return seen


def test_cache_holds_everything(tmp_path, reads):
    lines = rows()
    lines[7] = "3,1 2,Training"
    path = write(tmp_path / "fer2013.csv", lines=lines)
    votes(tmp_path / "fer2013new.csv")
    with pytest.warns(UserWarning):
        datas = [load(path, cache=c) for c in (False, tmp_path / "c", tmp_path / "c")]
    assert len(reads) == 2
    assert isinstance(datas[2].images, np.memmap)
    for name in ("images", "labels", "split", "votes", "names", "unlabelled"):
        a, b = (np.asarray(getattr(data, name)) for data in datas[::2])
        assert np.array_equal(a, b) and a.dtype == b.dtype, name
    for name in ("origin", "title", "faults", "fingerprint"):
        assert getattr(datas[0], name) == getattr(datas[2], name)


def test_cache_holds_unlabelled_pictures(tmp_path, reads):
    write(tmp_path / "data" / "icml_face_data.csv")
    write(tmp_path / "data" / "test.csv", "pixels", [text(image) for image in IMAGES[40:]])
    for _ in range(2):
        data = load(tmp_path / "data", cache=tmp_path / "c")
        assert np.array_equal(data.unlabelled, IMAGES[40:]) and len(data) == N
    assert len(reads) == 1


def test_changed_source_is_read_again(tmp_path, reads):
    path = write(tmp_path / "fer2013.csv")
    load(path, cache=tmp_path / "c")
    stat = path.stat()
    changed = path.read_bytes().replace(b"0,", b"1,", 1)
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    assert load(path, cache=tmp_path / "c").labels[0] == 1
    os.utime(path, ns=(0, 0))
    load(path, cache=tmp_path / "c")
    assert len(reads) == 3
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_changed_folder_is_read_again(tmp_path, reads):
    folders(tmp_path / "fer")
    load(tmp_path / "fer", cache=tmp_path / "c")
    (tmp_path / "fer" / "train" / "happy" / "Training_00000003.png").unlink()
    assert len(load(tmp_path / "fer", cache=tmp_path / "c")) == N - 1
    assert len(load(tmp_path / "fer", cache=tmp_path / "c")) == N - 1
    assert len(reads) == 2


@pytest.mark.parametrize("name", ["images.npy", "table.npz"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty", "gone"])
def test_damaged_cache_is_rebuilt(tmp_path, reads, name, damage):
    path = write(tmp_path / "fer2013.csv")
    load(path, cache=tmp_path / "c")
    file = next((tmp_path / "c").glob(f"*/{name}"))
    good, middle = file.read_bytes(), file.stat().st_size // 2
    marred = good[:middle] + b"\x55" * 64 + good[middle + 64 :]
    file.write_bytes({"truncated": good[:middle], "overwritten": marred}.get(damage, b""))
    if damage == "gone":
        file.unlink()
    for _ in range(2):
        check(load(path, cache=tmp_path / "c"))
    assert len(reads) == 2, "rebuilt once, then opened"


def test_cache_that_cannot_be_written_is_no_cache(tmp_path):
    path = write(tmp_path / "fer2013.csv")
    for _ in range(2):
        check(load(path, cache=path / "below a file"))


def test_processes_build_the_cache_at_once(tmp_path):
    path = write(tmp_path / "fer2013.csv")
    code = "import sys; from ferlib.sources import *; print(len(load(sys.argv[1], cache='c')))"
    command = [sys.executable, "-c", code, path]
    env, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    runs = [subprocess.Popen(command, stdout=pipe, cwd=tmp_path, env=env) for _ in range(3)]
    assert [int(run.communicate()[0]) for run in runs] == [N] * 3
    assert len(list((tmp_path / "c").iterdir())) == 1
    check(load(path, cache=tmp_path / "c"))


# ---- FERData -----------------------------------------------------------------------------


def test_sample_keeps_shares_and_order(faces):
    few = faces.sample(140, seed=1)
    assert len(few) == 140 and few.splits == faces.splits
    for split in faces.splits:
        share = (few.split == split).mean() - (faces.split == split).mean()
        assert abs(share) < 0.05
    cells = {(s, e) for s, e in zip(faces.split, faces.labels, strict=True)}
    tiny = faces.sample(len(cells))
    assert {(s, e) for s, e in zip(tiny.split, tiny.labels, strict=True)} == cells
    index = [faces.names.tolist().index(name) for name in few.names]
    assert index == sorted(index)
    assert np.array_equal(few.images, faces.sample(140, seed=1).images)
    assert not np.array_equal(few.names, faces.sample(140, seed=2).names)
    assert faces.sample(10**6) is faces


def test_select_of_and_fingerprint(tmp_path):
    data = load(write(tmp_path / "fer2013.csv"))
    assert np.array_equal(data.of("val").images, IMAGES[40:50])
    assert np.array_equal(data.select([5, 2]).labels, LABELS[[5, 2]])
    assert data.select(np.arange(N)).fingerprint == data.fingerprint
    assert data.select(np.arange(N)[::-1]).fingerprint != data.fingerprint
    assert len(data.fingerprint) == 16


def test_describe(tmp_path):
    table = sources.describe(load(write(tmp_path / "fer2013.csv")))
    assert list(table.columns) == ["train", "val", "test", "all"]
    assert list(table.index) == [*EMOTIONS, "all"]
    assert table.loc["all"].tolist() == [40, 10, 10, 60]
    assert table.loc["happy", "train"] == (LABELS[:40] == 3).sum()
    one = sources.describe(load(write(tmp_path / "f.csv", "emotion,pixels", rows("{e},{p}"))))
    assert list(one.columns) == ["none", "all"]


def test_import_is_light():
    heavy = ["pandas", "sklearn", "keras", "tensorflow", "PIL", "kagglehub"]
    code = f"import ferlib.cleaning, sys; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


# ---- FER2013 itself ----------------------------------------------------------------------


def test_fer2013(fer2013, tmp_path):
    data = sources.load(fer2013, cache=tmp_path, votes=None)
    assert data.faults == []
    assert (data.split == "train").sum() == 28709 and (data.split == "val").sum() == 3589
    happy = sources.describe(data).loc["happy", ["train", "val"]].tolist()
    assert np.abs(np.array(happy) - [7215, 895]).max() <= 1
    assert isinstance(sources.load(fer2013, cache=tmp_path, votes=None).images, np.memmap)


def test_a_part_of_train_and_val(faces):
    part = faces.part(train=50, val=20, seed=1)
    assert (len(part.of("train")), len(part.of("val")), len(part)) == (50, 20, 70)
    whole = faces.part(train=0, val=0)
    assert len(whole) == len(faces.of("train")) + len(faces.of("val"))


@pytest.mark.parametrize("kind", ["16 bits", "32 bits", "fractions", "transparent"])
def test_a_picture_is_the_same_in_every_way_to_store_it(faces, tmp_path, kind):
    face, path = faces.images[0], tmp_path / "face.tif"
    bright = face > np.median(face)
    stored = {
        "16 bits": face.astype(np.uint16),  # of which only the lower 8 are used
        "32 bits": face.astype(np.int32),
        "fractions": (face / 255).astype(np.float32),
        "transparent": np.dstack([face] * 3 + [np.where(bright, 0, 255).astype(np.uint8)]),
    }[kind]
    Image.fromarray(stored).save(path)
    wanted = np.where(bright, 255, face) if kind == "transparent" else face
    assert np.abs(pictures.read_picture(path).astype(int) - wanted).max() <= 1
