"""Builds the page that answers pictures in the visitor's own browser.

    python docs/browser/build.py OUT_DIR [--models tiny compact]

It needs npm, which fetches onnxruntime-web (MIT), and ferlib's extra `onnx`, which exports the
models. OUT_DIR is then a static page: any web server shows it, such as

    python -m http.server --directory OUT_DIR
"""

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ferlib import exports, labels, zoo

HERE = Path(__file__).parent
RUNTIME = "onnxruntime-web@1.30.0"
TAKEN = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def fetch(out: Path) -> None:
    """Gets the files of the runtime from npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("This needs npm, which comes with Node.js (https://nodejs.org).")
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run(
            [npm, "pack", RUNTIME, "--silent", "--pack-destination", folder],
            capture_output=True,
            encoding="utf-8",
        )
        if told.returncode:
            raise SystemExit(f"npm did not bring {RUNTIME}:\n{told.stderr}")
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            for name in TAKEN:
                member = package.extractfile(f"package/dist/{name}")
                if member is None:
                    raise SystemExit(f"{RUNTIME} holds no dist/{name}.")
                (out / name).write_bytes(member.read())


def about(name: str) -> str:
    """Says in a sentence how good a model is."""
    card = zoo.read_card(name)
    if "training" not in card:
        return ""
    right, data = card["training"]["val_accuracy"], card["data"]["title"]
    return f"{name} is right on {right:.1%} of val of {data}, which it was chosen on."


def build(out: Path, models: list[str]) -> None:
    """Writes the page, the runtime and the models."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (*HERE.glob("*.html"), *HERE.glob("*.mjs")):
        shutil.copy(path, out)
    fetch(out)
    listed = {}
    for model in models:
        name = Path(model).stem
        path = exports.export(model, out / f"{name}.onnx")
        classes = zoo.read_classes(model)
        colours = labels.colours(classes)
        listed[name] = {
            "file": path.name,
            "classes": classes,
            "colours": colours,
            "about": about(model),
        }
    (out / "models.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--models", nargs="+", default=["tiny", "compact"], metavar="MODEL")
    args = parser.parse_args()
    build(args.out, args.models)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.1f} MB; python -m http.server --directory {args.out}")


if __name__ == "__main__":
    main()
