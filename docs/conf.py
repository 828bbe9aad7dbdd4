"""Sphinx: ``sphinx-build -n -W --keep-going docs docs/_build/html``. Nothing is fetched, so it works offline."""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import rmsprop_nb

project = "rmsprop_nb"
author = "rmsprop_nb developers"
copyright = author
release = version = rmsprop_nb.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_sidebars = {"**": ["sidebar-groups"], "index": ["sidebar-groups"]}
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "navbar_center": [],  # the sidebar has the pages
    # without the contents of the page, its table of twelve columns fits beside the sidebar
    "secondary_sidebar_items": {"**": ["page-toc"], "mini-batches": []},
}
copybutton_exclude = ".linenos, .gp, .go"  # prompts and outputs are not for pasting

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https", "mailto"]

numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it

html_math_renderer = "mathml"


def inline_mathml(translator: HTML5Translator, node: nodes.math) -> None:
    """Write MathML, which browsers show by themselves; MathJax would have to be fetched."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_mathml(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write MathML for a formula on lines of its own."""
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (inline_mathml, None), (block_mathml, None))
