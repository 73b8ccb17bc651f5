"""Sphinx settings: markdown pages, one furo theme, every warning an error (`make docs`)."""

from __future__ import annotations

import meshsieve

project = "meshsieve"
author = "the meshsieve authors"
release = meshsieve.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"meshsieve {release}"
exclude_patterns = ["_build"]
