"""Sphinx: ``sphinx-build -n -W --keep-going docs docs/_build/html``. Nothing is fetched, so it works offline."""

from __future__ import annotations

import rmsprop_nb

project = "rmsprop_nb"
author = "rmsprop_nb developers"
copyright = author
release = version = rmsprop_nb.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_sidebars = {"**": []}  # the header and the page's own contents are all there is to show
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}

myst_heading_anchors = 3
myst_url_schemes = ["http", "https", "mailto"]

numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it
