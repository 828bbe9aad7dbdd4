"""Sphinx: ``sphinx-build -n -W --keep-going docs docs/_build/html``. Nothing is fetched, so it works offline."""

from __future__ import annotations

import rmsprop_nb

project = "rmsprop_nb"
author = "rmsprop_nb developers"
copyright = author
release = version = rmsprop_nb.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["tables.css"]
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
