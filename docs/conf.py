"""How Sphinx builds the site: ``make docs``, which fails at the first warning."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.docutils import SphinxDirective

sys.path.append(str(Path(__file__).parent))  # at the end: what lies beside this file hides nothing of others
from messages import messages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "bayesens"
author = "The bayesens developers"
copyright = "The bayesens developers"  # noqa: A001 - Sphinx calls it so
version = release = version_of("bayesens")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
# Links into other projects need their inventories from the network: a build without it must not fail, so one asks for them.
if os.environ.get("DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "arviz": ("https://python.arviz.org/en/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "pymc": ("https://www.pymc.io/projects/docs/en/stable/", None),
        "python": ("https://docs.python.org/3/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "xarray": ("https://docs.xarray.dev/en/stable/", None),
    }

exclude_patterns = ["_build"]
templates_path = ["_templates"]
# The first one is that of the pages that autosummary writes.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # code of pages is run by the tests, notebooks by theirs
myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "substitution",
]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc says it in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "bayesens"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# Pages that stand alone have nothing beside them.
html_sidebars = {
    name: []
    for name in ("install", "start", "ideas", "gallery", "comparison", "errors", "glossary", "cite", "changelog")
}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_math_renderer = "mathml"  # browsers draw it: no script, and no network when somebody reads


def inline(writer: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


class Messages(SphinxDirective):
    """Lists the messages of packages, one an entry."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return one list, whose quotation marks stay as they are printed."""
        every = nodes.bullet_list(classes=["messages"])
        every["support_smartquotes"] = False
        for door in self.arguments[0].split():
            for text, kind in messages()[door]:
                line = nodes.paragraph("", "", nodes.Text(text + " "), nodes.inline("", kind, classes=["kind"]))
                every += nodes.list_item("", line)
        return [every]


def bring_notebooks(app: Sphinx) -> None:
    """Copy the notebooks, with the outputs that they were committed with, below the pages."""
    for path in (Path(app.srcdir).parent / "notebooks").glob("*.ipynb"):
        shutil.copy(path, Path(app.srcdir) / "notebooks" / path.name)


def setup(app: Sphinx) -> None:
    """Tell Sphinx how formulas are written, what lists messages, and where notebooks are."""
    app.connect("builder-inited", bring_notebooks)
    app.add_directive("messages", Messages)
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
