"""The book: its pages, links and settings, and the form of the notebooks that it shows."""

import importlib.util
import json
import re
import subprocess
import sys
from urllib.parse import unquote

import book
import nbformat
import pytest
from conftest import ROOT

NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.fixture
def run(tmp_path):
    """Gives a run's folder, with the notebooks as papermill leaves them, but for the outputs."""
    folder = tmp_path / "run"
    folder.mkdir()
    stages = {}
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        injected = nbformat.v4.new_code_cell("out = '/home/somebody'")
        injected.metadata["tags"] = ["injected-parameters"]
        notebook.cells.insert(3, injected)
        nbformat.write(notebook, folder / path.name)
        stages[path.stem] = {"parameters": {"seed": 0, "pictures": 700}}
    (folder / "manifest.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badges_open_what_there_is(path):
    links = book.links(f"notebooks/{path.name}")
    assert list(links) == list(book.BADGES)
    owner = book.REPOSITORY.removeprefix("https://github.com/")
    for address in links.values():
        opened = re.search(r"notebooks/\S+\.ipynb$", unquote(address))[0]
        assert (ROOT / opened).is_file() and owner in address and "/main" in address


def test_readme_opens_notebooks_by_the_same_addresses():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        links = book.links(f"notebooks/{path.name}").items()
        cell = " · ".join(f"[{place}]({address})" for place, address in links)
        assert cell in text, f"README.md opens {path.stem} by other addresses than book.links"


class TestLayOut:
    def test_takes_every_page_and_finds_every_link(self, run, tmp_path):
        book.lay_out(run, tmp_path / "source")
        for path, place in book.pages().items():
            assert (tmp_path / "source" / place).is_file(), path
        assert (tmp_path / "source/figures/scene.jpg").is_file()

    def test_every_page_of_the_guide_is_in_a_table_of_contents(self):
        named = set()
        for path in ROOT.glob("docs/*.md"):
            text = path.read_text(encoding="utf-8")
            named |= set(re.findall(r"^(?:.*<)?([\w/]+)>?$", text, re.MULTILINE))
        places = [place for place in book.pages().values() if place.endswith(".md")]
        assert {place.removesuffix(".md") for place in places} - named == {"index"}

    def test_dresses_a_notebook(self, run, tmp_path):
        book.lay_out(run, tmp_path / "source")
        page = nbformat.read(tmp_path / "source/notebooks/03_cnn_training.ipynb", as_version=4)
        nbformat.validate(page)
        text = "\n".join(cell.source for cell in page.cells)
        assert "/home/somebody" not in text
        assert "`pictures` 700" in page.cells[1].source and "seed" not in page.cells[1].source
        assert "/_static/colab.svg" in text and "colab-badge.svg" not in text
        figures = {path.stem for path in book.FIGURES.glob("03_cnn_training/*.png")}
        assert set(re.findall(r"/figures/fer2013/03_cnn_training/(\w+)\.png", text)) == figures

    def test_says_which_notebook_a_run_lacks(self, run, tmp_path):
        (run / NOTEBOOKS[0].name).unlink()
        with pytest.raises(FileNotFoundError, match=NOTEBOOKS[0].stem):
            book.lay_out(run, tmp_path / "source")


class TestRewrite:
    known = book.pages()

    @pytest.mark.parametrize(
        ("source", "link", "wanted"),
        [
            ("docs/running.md", "data.md", "data.md"),
            (
                "docs/results.md",
                "../experiments/LOG.md#2026-11-27",
                "experiments/LOG.md#2026-11-27",
            ),
            (
                "docs/index.md",
                "../notebooks/01_exploration.ipynb",
                "notebooks/01_exploration.ipynb",
            ),
            ("experiments/LOG.md", "../docs/results.md", "../results.md"),
            ("docs/running.md", "../profiles", f"{book.REPOSITORY}/tree/main/profiles"),
            ("CONTRIBUTING.md", "LICENSE", f"{book.REPOSITORY}/blob/main/LICENSE"),
            ("docs/running.md", "https://example.org/a.md", "https://example.org/a.md"),
            ("docs/running.md", "#profiles", "#profiles"),
        ],
    )
    def test_leads_into_the_book_or_to_the_repository(self, source, link, wanted):
        assert book.rewrite(f"[a]({link}) b", source, self.known) == f"[a]({wanted}) b"

    def test_leaves_code_alone(self):
        text = "```python\nnames[0](missing.md)\n```"
        assert book.rewrite(text, "docs/running.md", self.known) == text

    def test_names_a_link_that_leads_nowhere(self):
        with pytest.raises(FileNotFoundError, match=r"running\.md links to nowhere\.md"):
            book.rewrite("[a](nowhere.md)", "docs/running.md", self.known)


def test_the_check_finds_what_is_wrong(tmp_path):
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images/one.png").write_bytes(b"1")
    good = '<a id="here" href="#here">a</a><a href="b.html#there">b</a><img src="_images/one.png" '
    (tmp_path / "a.html").write_text(f'{good} alt="one">', encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there">b</p>', encoding="utf-8")
    assert book.check(tmp_path, {"a.html": 1}) == []
    assert book.check(tmp_path, {"a.html": 2}) == ["a.html has 1 figures; its notebook shows 2"]
    assert book.check(tmp_path, {"c.html": 1}) == ["c.html has 0 figures; its notebook shows 1"]
    bad = '<a href="c.html">c</a><a href="b.html#no">b</a><img src="_images/two.png" alt="x">'
    bad += '<img src="_images/one.png"><img src="https://example.org/x.svg" alt="x">'
    (tmp_path / "a.html").write_text(bad, encoding="utf-8")
    assert [line.partition(": ")[2] for line in book.check(tmp_path, {})] == [
        "c.html leads nowhere",
        "b.html#no names no place of that page",
        "the picture _images/two.png is missing",
        "the picture _images/one.png has no alternative text",
        "the picture https://example.org/x.svg is fetched from another host",
    ]


def test_figures_of_fer2013_show_no_single_picture():
    here = {path.relative_to(book.FIGURES).with_suffix("") for path in book.FIGURES.rglob("*.png")}
    allowed = {f"{stage}/{name}" for stage, names in book.AGGREGATE.items() for name in names}
    assert {path.as_posix() for path in here} == allowed
    about = json.loads((book.FIGURES / "run.json").read_text(encoding="utf-8"))
    assert about.keys() >= {"command", "date", "seed", "fingerprint", "revision", "versions"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestForm:
    def test_half_of_its_cells_have_five_lines_at_most(self, path):
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        short = sum(len(cell.source.splitlines()) <= 5 for cell in cells)
        assert 2 * short >= len(cells), f"{short} of {len(cells)} cells"

    def test_each_figure_has_alternative_text(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and book.shown(cell):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) > 20, f"no text for {book.shown(cell)}"


EXTRA = "the extra book is not installed"


def test_formulas_become_mathml():
    pytest.importorskip("myst_nb", reason=EXTRA)
    converter = pytest.importorskip("latex2mathml.converter", reason=EXTRA)
    found = []
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                found += re.findall(r"\$\$(.+?)\$\$", cell.source, re.DOTALL)
    assert found
    for latex in found:
        assert converter.convert(latex).startswith("<math")


def test_settings_are_those_that_sphinx_knows():
    pytest.importorskip("myst_nb", reason=EXTRA)
    for name in ("pydata_sphinx_theme", "sphinx_design", "sphinx_copybutton"):
        pytest.importorskip(name, reason=EXTRA)
    config = pytest.importorskip("sphinx.config", reason=EXTRA)
    tags = pytest.importorskip("sphinx.util.tags", reason=EXTRA)
    read = config.Config.read(ROOT / "docs", overrides={}, tags=tags.Tags())
    assert read.project == "ferlib" and read.root_doc == "index"
    for name in read.extensions:
        assert importlib.util.find_spec(name), f"the extra book lacks {name}"


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(run, tmp_path):
    pytest.importorskip("myst_nb", reason=EXTRA)
    pytest.importorskip("pydata_sphinx_theme", reason=EXTRA)
    command = [sys.executable, "docs/book.py", "--run", str(run), "--out", str(tmp_path / "book")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "WARNING" not in told.stderr, told.stderr
    # The run has no outputs, so it must have failed for the figures that are missing, and no more.
    lines = [line for line in told.stdout.splitlines() if line]
    assert told.returncode == 1 and lines
    assert all("figures; its notebook shows" in line for line in lines), told.stdout
