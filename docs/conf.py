"""Sphinx's settings of the book, whose pages `docs/book.py` lays out."""

import tomllib
from pathlib import Path

from latex2mathml.converter import convert

import ferlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]

project = "ferlib"
author = "The ferlib authors"
release = version = ferlib.__version__
html_title = f"ferlib {release}"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
default_role = "code"  # docstrings quote code in single backticks

nb_execution_mode = "off"  # `ferlib run` has executed the notebooks
nb_merge_streams = True
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3

autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

copybutton_exclude = ".linenos, .gp, .go"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "api": ["sidebar-nav-bs"]}
html_theme_options = {
    "logo": {"text": "ferlib"},
    "navbar_align": "left",
    "icon_links": [{"name": "GitHub", "url": REPOSITORY, "icon": "fa-brands fa-github"}],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": ["page-toc"],
}


def mathml(latex, *, display):
    """Translates a formula to MathML, which browsers show without a script."""
    return convert(latex, display="block" if display else "inline")


def inline_math(self, node):
    """Writes a formula within a line."""
    from docutils import nodes

    self.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def block_math(self, node):
    """Writes a formula on a line of its own."""
    from docutils import nodes

    self.body.append(f'<div class="math">{mathml(node.astext(), display=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Registers the formulas."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.config.html_math_renderer = "mathml"
