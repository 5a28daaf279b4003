"""Changes data of all kinds at random, and counts what `sources.load` makes of it.

    python tests/fuzz_sources.py [--cases 1000] [--seed 0]

Each case must give the right rows with faults named, or ferlib's own error; none may give other
rows or a traceback. Only in a plain csv, a tar or an array can one number become another unseen:
as many rows may differ there as bytes were changed. parquet is tried where pyarrow is installed.
"""

import argparse
import gzip
import io
import shutil
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ferlib import sources
from ferlib.labels import EMOTIONS

N = 70
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 48, 48), np.uint8)
LABELS = np.arange(N) % 7
USAGE = np.repeat(["Training", "PublicTest", "PrivateTest"], [42, 14, 14])
SPLIT = np.repeat(["train", "val", "test"], [42, 14, 14])
TRUTH = {IMAGES[i].tobytes(): (EMOTIONS[LABELS[i]], SPLIT[i]) for i in range(N)}


def make_csv(rng) -> bytes:
    """Returns a csv with its columns in any order, separated and encoded in any usual way."""
    order = rng.permutation(3)
    separator = rng.choice([",", ",", ";", "\t"])
    rows = [["emotion", "pixels", "Usage"]]
    for i in range(N):
        rows.append([str(LABELS[i]), " ".join(map(str, IMAGES[i].ravel())), USAGE[i]])
    text = "\n".join(separator.join(row[k] for k in order) for row in rows) + "\n"
    return text.encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))


def make_folder(root: Path):
    for i in range(N):
        path = root / USAGE[i] / EMOTIONS[LABELS[i]] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path, compress_level=1)


def make_arrays(rng, root: Path):
    """Writes arrays, in files of their own or in one .npz."""
    images = [IMAGES, IMAGES[..., None], IMAGES.reshape(N, -1), (IMAGES / 255).astype("f4")]
    arrays = {
        "images": images[int(rng.integers(4))],
        "labels": [LABELS, LABELS.astype("i1"), np.array(EMOTIONS)[LABELS]][int(rng.integers(3))],
        "split": USAGE,
    }
    if rng.random() < 0.5:
        np.savez(root / "fer.npz", **arrays)
    else:
        for name, values in arrays.items():
            np.save(root / f"{name}.npy", values)


def make_parquet(rng, path: Path):
    import pyarrow as pa
    import pyarrow.parquet

    rows = []
    for i in range(N):
        file = io.BytesIO()
        Image.fromarray(IMAGES[i]).save(file, "png", compress_level=1)
        rows.append(
            {"image": {"bytes": file.getvalue(), "path": None}, "label": EMOTIONS[LABELS[i]]}
        )
        rows[-1]["split"] = USAGE[i]
    compression = str(rng.choice(["none", "snappy", "zstd"]))
    table = pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, compression=compression, write_page_checksum=True)


def pack(rng, content: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    if rng.random() < 0.5:
        method = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(file.getvalue(), 1) if rng.random() < 0.5 else file.getvalue()


def change(rng, data: bytes) -> tuple[bytes, int, str]:
    """Returns changed bytes, how many rows may differ unseen, and what was done."""
    data = bytearray(data)
    at = int(rng.integers(len(data))) if len(data) else 0
    how = rng.choice(["cut", "flip", "flip", "block", "insert", "remove", "twice", "nothing"])
    n = 0
    if how == "cut":
        del data[at:]
    elif how == "flip":
        n = int(rng.integers(1, 6))
        for place in rng.integers(len(data), size=n):
            data[place] = int(rng.integers(256))
    elif how == "block":
        n = 1
        data[at : at + 100] = rng.bytes(len(data[at : at + 100]))
    elif how == "insert":
        n = 1
        data[at:at] = rng.bytes(int(rng.integers(1, 5)))
    elif how == "remove":
        n = 1
        del data[at : at + int(rng.integers(1, 5000))]
    elif how == "twice":
        data = data + data
    return bytes(data), n, str(how)


def change_folder(rng, root: Path) -> str:
    files = sorted(root.rglob("*.png"))
    how = rng.choice(["change", "link up", "hidden", "broken link", "rename", "lower"])
    victim = files[int(rng.integers(len(files)))]
    if how == "change":
        victim.write_bytes(change(rng, victim.read_bytes())[0])
    elif how == "link up":
        (victim.parent / "up").symlink_to("../..")
    elif how == "hidden":
        shutil.copy(victim, victim.with_name("._" + victim.name))
    elif how == "broken link":
        (root / "old.csv").symlink_to("gone")
    elif how == "rename":
        victim.rename(victim.with_suffix(""))
    else:
        (root / "PublicTest").rename(root / "public_test")
    return str(how)


def judge(source: Path, may_differ: int) -> str:
    try:
        data = sources.load(source, cache=False)
    except (ValueError, FileNotFoundError) as error:
        return "error" if str(source) in str(error) or source.name in str(error) else "UNNAMED"
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}: {error}"
    wrong = 0
    for image, label, split in zip(data.images, data.labels, data.split, strict=True):
        wrong += TRUTH.get(image.tobytes()) != (data.classes[label], split)
    if wrong > may_differ:
        return f"WRONG ROWS {wrong}"
    there = len(data) + len(data.faults) + len(data.unlabelled)
    if there + sum(left.pictures for left in data.left_out) < N - may_differ:
        return f"LOST {N - there}"
    return "right, with faults named" if data.faults else "right"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, longest, bad = Counter(), 0.0, 0
    kinds = ["csv", "archive of a csv", "archive of pictures", "folder", "arrays", "parquet"]
    if not find_spec("pyarrow"):
        kinds.remove("parquet")
    with tempfile.TemporaryDirectory() as place:
        original = Path(place) / "original"
        make_folder(original)
        members = {str(p.relative_to(original)): p.read_bytes() for p in original.rglob("*.png")}
        for case in range(args.cases):
            rng = np.random.default_rng([args.seed, case])
            work = Path(place) / "work"
            kind = kinds[case % len(kinds)]
            may_differ = 0
            if kind == "folder":
                shutil.copytree(original, work)
                how = change_folder(rng, work)
                source = work
            elif kind in ("arrays", "parquet"):
                work.mkdir()
                source = work
                make_arrays(rng, work) if kind == "arrays" else make_parquet(
                    rng, work / "train.bin"
                )
                files = sorted(work.iterdir())
                victim = files[int(rng.integers(len(files)))]
                content, may_differ, how = change(rng, victim.read_bytes())
                if victim.suffix != ".npy":
                    may_differ = 0
                victim.write_bytes(content)
            else:
                work.mkdir()
                source = work / "source.bin"
                content = make_csv(rng) if kind == "csv" else pack(
                    rng, members if "pictures" in kind else {"fer.csv": make_csv(rng)}
                )  # fmt: skip
                content, may_differ, how = change(rng, content)
                if kind == "archive of a csv" and content[:5] != b"PK\3\4":
                    pass  # a tar has no checksum of what it holds
                elif kind != "csv":
                    may_differ = 0
                source.write_bytes(content)
            start = time.perf_counter()
            verdict = judge(source, may_differ if how != "twice" else N)
            longest = max(longest, time.perf_counter() - start)
            counts[kind, verdict.split(" ")[0] if verdict[:1].isupper() else verdict] += 1
            if verdict[:2].isupper():
                bad += 1
                print(f"case {case}, {kind}, {how}: {verdict}"[:300])
            shutil.rmtree(work)
    for (kind, verdict), n in sorted(counts.items()):
        print(f"{kind:20} {verdict:26} {n}")
    print(f"{args.cases} cases, seed {args.seed}: {bad} bad; the longest took {longest:.1f} s")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
