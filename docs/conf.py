"""Settings of the documentation site: `make docs`; every warning is an error."""

from __future__ import annotations

from typing import Any

from pygments.lexers.sql import SqlLexer

import apbatch

project = "apbatch"
author = "the apbatch developers"
version = release = apbatch.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "tutorials/tutorial-*"]
# Notebooks are shown with the output that they were committed with; tests/components/api/test_tutorials.py runs them.
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "pydata_sphinx_theme"
html_title = "apbatch"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": True, "show_prev_next": False}
html_show_sourcelink = False
# Names in single backquotes are code here, as in the source.
default_role = "code"
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Show CQL as the SQL that it resembles."""
    app.add_lexer("cql", SqlLexer)
