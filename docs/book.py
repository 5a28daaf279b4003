"""Makes the book: runs the notebooks on drawn faces, lays out the pages, builds and checks them.

`make book` calls it. `python docs/book.py --figures runs/quick` takes over the figures of a run on
FER2013 that show no single picture.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
FIGURES = ROOT / "docs/figures/fer2013"
PROFILE = "book"

# Of a run on FER2013 only what is computed from many pictures at once.
AGGREGATE = {
    "01_exploration": ("counts", "mean_faces", "pixel_statistics", "votes"),
    "03_cnn_training": ("first_network", "accuracy_against_time", "confusion_compact"),
    "04_hyperparameter_tuning": ("trials", "values", "importance"),
    "06_error_analysis": ("accuracy", "per_class", "confusion", "calibration", "taggers"),
    "07_what_the_model_sees": ("hard", "map", "robustness"),
}
# Pages that lie elsewhere in the book than in the repository.
MOVED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "data/README.md": "data_folder.md",
    "experiments/README.md": "experiments/README.md",
    "experiments/LOG.md": "experiments/LOG.md",
}
PLACES = {
    "Colab": "https://colab.research.google.com/{github}/blob/main/{path}",
    "Kaggle": "https://kaggle.com/kernels/welcome?src=https://{host}/blob/main/{path}",
    "Binder": "https://mybinder.org/v2/gh/{owner}/main?labpath={quoted}",
}
BADGES = {
    "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
    "Kaggle": "https://kaggle.com/static/images/open-in-kaggle.svg",
    "Binder": "https://mybinder.org/badge_logo.svg",
}


def links(path: str) -> dict[str, str]:
    """Gives the addresses that open a notebook in the places that run it.

    Args:
        path: The notebook, from the root of the repository.
    """
    host = REPOSITORY.removeprefix("https://")
    about = {"host": host, "owner": host.partition("/")[2], "path": path}
    about |= {"github": host.replace("github.com", "github"), "quoted": quote(path, safe="")}
    return {place: form.format(**about) for place, form in PLACES.items()}


def badges(path: str) -> str:
    """Gives the line of badges of a notebook, in Markdown."""
    return " ".join(
        f"[![Open in {place}]({BADGES[place]})]({address})"
        for place, address in links(path).items()
    )


# ---- laying out --------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Gives what the book takes of the repository: path there -> path in the book."""
    found = {path: place for path, place in MOVED.items() if (ROOT / path).exists()}
    for path in sorted(ROOT.glob("docs/**/*.md")):
        found[path.relative_to(ROOT).as_posix()] = path.relative_to(ROOT / "docs").as_posix()
    for path in sorted(ROOT.glob("notebooks/**/*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        found[name] = name
    return found


def rewrite(text: str, source: str, known: dict[str, str]) -> str:
    """Makes the links of a page those of the book, or of the repository where it lacks the file.

    Args:
        text: Markdown.
        source: The page's path in the repository.
        known: What `pages` gives.

    Returns:
        The Markdown with other links; code in fences stays as it is.

    Raises:
        FileNotFoundError: If a link leads to no file.
    """
    here = Path(known[source]).parent

    def lead(found):
        target, mark, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        wanted = Path(os.path.normpath(ROOT / Path(source).parent / unquote(target)))
        if not wanted.exists():
            raise FileNotFoundError(f"{source} links to {target}, which does not exist.")
        path = wanted.relative_to(ROOT).as_posix()
        if path in known:
            new = os.path.relpath(known[path], here)
        elif path.startswith("docs/") and wanted.is_file():
            new = os.path.relpath(path.removeprefix("docs/"), here)
        else:
            new = f"{REPOSITORY}/{'tree' if wanted.is_dir() else 'blob'}/main/{path}"
        return found[1] + new.replace(os.sep, "/") + mark + anchor + found[3]

    lines, fenced = [], False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if not fenced:
            line = re.sub(r"(\]\()([^)\s]+)(\))", lead, line)
            line = re.sub(r'((?:src|href)=")([^"]+)(")', lead, line)
        lines.append(line)
    # A paragraph in HTML around pictures keeps Sphinx from seeing them.
    return "\n".join(line for line in lines if not re.fullmatch(r"</?p\b[^>]*>", line))


def shown(cell) -> list[str]:
    """Gives the names of the figures that a cell shows."""
    return re.findall(r'stage\.show\(.*?"(\w+)"\)', cell.source, re.DOTALL)


def lay_out(run: Path, source: Path) -> None:
    """Writes all pages into a folder: those of the repository, and the notebooks of a run.

    Args:
        run: Folder of a run.
        source: Folder for the pages; it is made anew.

    Raises:
        FileNotFoundError: If a page links to what does not exist, or the run lacks a notebook.
    """
    import nbformat

    shutil.rmtree(source, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.md", "*.py", "__pycache__")
    shutil.copytree(ROOT / "docs", source, ignore=ignored)
    known, changed = pages(), _changed(run)
    for path, place in known.items():
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            (source / place).write_text(rewrite(text, path, known), encoding="utf-8")
            continue
        is_solution = "solutions" in path
        file = ROOT / path if is_solution else run / Path(path).name
        if not file.exists():
            raise FileNotFoundError(f"{run} lacks {file.name}: run all notebooks.")
        notebook = nbformat.read(file, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = rewrite(cell.source, path, known)
        if not is_solution:
            _dress(notebook, path, changed.get(Path(path).stem, {}))
        nbformat.write(notebook, source / place)


def _changed(run):
    """Gives the parameters that a run changed, by notebook."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    left = {"seed"}
    return {
        stage: {key: value for key, value in entry["parameters"].items() if key not in left}
        for stage, entry in manifest["stages"].items()
    }


def _dress(notebook, path, changed):
    """Makes an executed notebook a page: badges, a note on the data, figures of FER2013."""
    from nbformat.v4 import new_markdown_cell

    about = ROOT / "docs/figures/fer2013/run.json"
    run = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
    cells, section = [], ""
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue
        cells.append(cell)
        if cell.cell_type != "code":
            headings = re.findall(r"^#+ (.*)", cell.source, re.MULTILINE)
            section = headings[-1] if headings else section
            continue
        names = shown(cell)
        image = cell.metadata.get("mystnb", {}).get("image", {})
        alt = image.get("alt", f"Figure of the section “{section}”")
        cell.metadata["mystnb"] = {"image": image | {"alt": alt}}
        for name in names:
            figure = f"/figures/fer2013/{Path(path).stem}/{name}.png"
            if (ROOT / "docs" / figure[1:]).exists():
                cells.append(new_markdown_cell(_figure(figure, alt, run)))
    for place, picture in BADGES.items():  # so that a page asks no other host for anything
        cells[0].source = cells[0].source.replace(picture, f"/_static/{place.lower()}.svg")
    cells.insert(1, new_markdown_cell(_note(changed)))
    notebook.cells = cells
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"


def _note(changed):
    """Says what the notebook was run on."""
    text = "This page was run on drawn faces, since FER2013's pictures may not be passed on."
    if changed:
        values = ", ".join(f"`{key}` {value!r}" for key, value in changed.items())
        text += f" To keep the run short, these parameters were changed: {values}."
    return f":::{{note}}\n{text}\n:::"


def _figure(figure, alt, run):
    """Gives a figure of the run on FER2013, in Markdown."""
    said = f"The same on FER2013, from one run of `{run['command']}` on {run['date']}"
    said += f" (seed {run['seed']}, data {run['fingerprint']})."
    return f":::{{figure}} {figure}\n:class: fer2013\n:alt: {alt}, on FER2013\n\n{said}\n:::"


def take_figures(run: Path) -> None:
    """Copies the figures of a run on FER2013 that show no single picture, in few colours.

    Args:
        run: Folder of the run.

    Raises:
        ValueError: If the run is not done, or was on other data.
    """
    from PIL import Image

    text = (run / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    if manifest["status"] != "done" or manifest["data"]["is_drawn"]:
        what = f"{manifest['status']}, on {manifest['data']['title']}"
        raise ValueError(f"{run} is {what}: figures are taken of a finished run on FER2013.")
    for stage, names in AGGREGATE.items():
        (FIGURES / stage).mkdir(parents=True, exist_ok=True)
        for name in names:
            with Image.open(run / stage / f"figures/{name}.png") as figure:
                few = figure.convert("RGB").quantize(64, dither=Image.Dither.NONE)
                few.save(FIGURES / stage / f"{name}.png", optimize=True)
    ended = (run / "manifest.json").stat().st_mtime
    profile = manifest["profile"]
    about = {
        "command": "ferlib run" + (f" --profile {profile}" if profile != "quick" else ""),
        "date": datetime.date.fromtimestamp(ended).isoformat(),
        "seed": manifest["seed"],
        "fingerprint": manifest["data"]["fingerprint"],
        "revision": manifest["revision"],
        "versions": manifest["versions"],
        "minutes": round(sum(x["seconds"] for x in manifest["stages"].values()) / 60, 1),
    }
    (FIGURES / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


# ---- checking ----------------------------------------------------------------------------


class _Page(HTMLParser):
    """Collects the names, links and pictures of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.names, self.links, self.images = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= {given.get("id"), given.get("name")}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.images.append((given.get("src", ""), given.get("alt")))


def check(html: Path, wanted: dict[str, int]) -> list[str]:
    """Looks for links that lead nowhere, and for pictures that are missing.

    Args:
        html: Folder of the built pages.
        wanted: Pages, from that folder -> how many figures they must have at least.

    Returns:
        What is wrong, a line each.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(html.rglob("*.html"))}
    read = {path: _Page(text) for path, text in texts.items()}
    wrong = []
    for path, page in read.items():
        name = path.relative_to(html).as_posix()
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or name in ("search.html", "genindex.html"):
                continue
            other = Path(os.path.normpath(path.parent / unquote(target))) if target else path
            if not other.is_file():
                wrong.append(f"{name}: {link} leads nowhere")
            elif anchor and other in read and unquote(anchor) not in read[other].names:
                wrong.append(f"{name}: {link} names no place of that page")
        for image, alt in page.images:
            local = not re.match(r"[a-z]+:", image)
            if local and not (path.parent / unquote(image)).is_file():
                wrong.append(f"{name}: the picture {image} is missing")
            if not local and not image.startswith("data:"):
                wrong.append(f"{name}: the picture {image} is fetched from another host")
            if not alt:
                wrong.append(f"{name}: the picture {image} has no alternative text")
    for name, number in wanted.items():
        page = read.get(html / name)
        figures = sum("_images/" in image for image, _ in page.images) if page else 0
        if figures < number:
            wrong.append(f"{name} has {figures} figures; its notebook shows {number}")
    return wrong


def figures_wanted() -> dict[str, int]:
    """Counts the figures that each page must show: those of its notebook, and of FER2013."""
    import nbformat

    wanted = {}
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        number = sum(len(shown(cell)) for cell in cells if cell.cell_type == "code")
        number += len([*FIGURES.glob(f"{path.stem}/*.png")])
        wanted[f"notebooks/{path.stem}.html"] = number
    return wanted


def main() -> int:
    """Makes the book; returns 0 where nothing is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="an executed run's folder; without it the notebooks are run")
    parser.add_argument("--out", default=str(ROOT / "build/book"), help="folder of the book")
    parser.add_argument("--figures", metavar="RUN", help="only take the figures of this run")
    asked = parser.parse_args()
    if asked.figures:
        take_figures(Path(asked.figures))
        return 0
    sys.path.insert(0, str(ROOT))
    if not asked.run:
        from ferlib import suite

        made = suite.run(PROFILE, "drawn", name="book", project=ROOT)
        if made["status"] != "done":
            print(made["problem"], file=sys.stderr)
            return 1
    run, out = Path(asked.run or ROOT / "runs/book").resolve(), Path(asked.out).resolve()
    lay_out(run, out / "source")
    shutil.rmtree(out / "html", ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    sphinx += ["-c", str(ROOT / "docs")]
    paths = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    told = subprocess.run([*sphinx, str(out / "source"), str(out / "html")], env=paths)
    if told.returncode:
        return told.returncode
    wrong = check(out / "html", figures_wanted())
    print("\n".join(wrong) or f"The book lies in {out / 'html' / 'index.html'}.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
