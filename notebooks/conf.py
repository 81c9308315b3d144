"""Settings of the site: ``python -m sphinx -W --keep-going notebooks build/site``."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import _docstrings  # noqa: E402
import _links  # noqa: E402
import _pages  # noqa: E402

import jaxmtl  # noqa: E402

project = "jaxmtl"
author = "The jaxmtl authors"
copyright = author
version = release = jaxmtl.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["**.ipynb_checkpoints", "_build"]

# Notebooks are shown as they are stored; tests/test_notebooks.py runs them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

smartquotes_action = "D"  # dashes alone: g' is a gradient
autodoc_typehints = "none"  # the docstrings say more: shapes
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Returns"]  # sentences, in which a colon begins no type
python_maximum_signature_line_length = 80
toc_object_entries = False

html_theme = "furo"
html_title = f"jaxmtl {release}"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_js_files = ["sortable.js"]
html_css_files = ["site.css"]
html_show_copyright = False


def setup(app):
    """Make the reference, read the docstrings as they are written, and link the names."""
    app.connect("builder-inited", _pages.write_pages)
    app.connect("autodoc-process-docstring", _docstrings.to_rst, priority=400)  # before napoleon
    app.connect("env-check-consistency", _pages.check_public_names)
    app.add_transform(_links.LinkNames)
