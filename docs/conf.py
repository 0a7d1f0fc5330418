"""Configuration of the documentation site: ``python -m sphinx -W --keep-going docs build/site``."""

from __future__ import annotations

import abc
import importlib
import re
import sys
from pathlib import Path

import fastgru
from sphinx.ext.autodoc.mock import mock, undecorate

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "fastgru"
author = "The fastgru authors"
copyright = author
version = release = fastgru.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]
nitpicky = True  # a cross reference without a target is a warning

html_theme = "furo"
html_title = f"fastgru {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 3

# The API reference: one page for each public module, from its docstrings.
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "member-order": "bysource",
    "exclude-members": "inner_loop",  # fastgru.keras.GRU overrides it for Keras; users do not call it
}
autodoc_typehints = "none"  # the sections Parameters and Returns have the types, in words
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # a method that a class overrides is described once, in its base
autodoc_mock_imports = ["keras", "sklearn", "tensorflow", "torch"]  # the drop-ins are described without the frameworks
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "py:obj"  # single backticks link to a public name where there is one


def public_names(page):
    """The public names of each module that the page lists, by kind, for docs/_templates/module.rst.

    A class that two modules have is described in the first one.
    """
    found, described = {}, set()
    with mock(autodoc_mock_imports):
        for name in re.findall(r"^   (fastgru[\w.]*)$", page.read_text(), re.MULTILINE):
            module = importlib.import_module(name)
            listed = getattr(module, "__all__", None) or [each for each in vars(module) if not each.startswith("_")]
            values = {each: undecorate(getattr(module, each)) for each in listed}
            if not hasattr(module, "__all__"):
                values = {each: value for each, value in values.items() if getattr(value, "__module__", "") == name}
            values = {each: value for each, value in values.items() if callable(value) and value not in described}
            classes = [each for each, value in values.items() if isinstance(value, type)]
            functions = [each for each in values if each not in classes]
            described |= {values[each] for each in classes}
            found[name] = {"classes": classes, "functions": functions}
    return found


autosummary_context = {"public": public_names(DOCS / "api.md")}

nitpick_ignore_regex = [
    ("py:obj", r"(?!fastgru\.).*"),  # single backticks also name parameters and values
    ("py:class", r"(?!fastgru\.).*"),  # types of attributes are words, bases may be those of other packages
]

# Pages that live elsewhere in the repository. Under docs/ lies a stub with a link, which the site replaces.
ELSEWHERE = {
    "benchmarks": ROOT / "benchmarks" / "README.md",
    "changelog": ROOT / "CHANGELOG.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "examples": ROOT / "examples" / "README.md",
}


def read_page(app, docname, source):
    """Take pages from where they live, and make links between them hold in the site as well as in the repository."""
    path = ELSEWHERE.get(docname, DOCS / f"{docname}.md")
    if docname in ELSEWHERE:
        source[0] = path.read_text()

    def in_site(match):
        file, anchor = (path.parent / match[1]).resolve(), match[2] or ""
        for name, place in ELSEWHERE.items():
            if file == place:
                return f"](/{name}.md{anchor})"
        if file.is_relative_to(DOCS):
            return f"](/{file.relative_to(DOCS)}{anchor})"
        return f"](path:/../{file.relative_to(ROOT)})"  # a file of the repository, which the site offers for download

    source[0] = re.sub(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)", in_site, source[0])


def show_public_bases(app, name, obj, options, bases):
    """Replace bases that are not public, such as ``_Pointwise``, with their own bases."""
    position = 0
    while position < len(bases):
        base = bases[position]
        if isinstance(base, type) and base.__module__.startswith("fastgru."):
            public = sys.modules[".".join(base.__module__.split(".")[:2])]
            if base.__name__.startswith("_") or getattr(public, base.__name__, None) is not base:
                bases[position : position + 1] = base.__bases__
                continue
        position += 1
    bases[:] = [base for base in bases if base not in (abc.ABC, object)] or bases[:1]


def internal_name(app, env, node, contnode):
    """Show a name of the package that exists but has no page as code, without a link."""
    names = node.get("reftarget", "").split(".")
    if names[0] != "fastgru":
        return None
    for end in range(len(names), 0, -1):
        try:
            value = importlib.import_module(".".join(names[:end]))
        except ImportError:
            continue
        for name in names[end:]:
            value = getattr(value, name, None)
        return None if value is None else contnode
    return None


def without_compiled_module(app, what, name, obj, options, signature, returns):
    """Leave out the type of ``self`` in pybind11's signatures, which names one compiled module."""
    return re.sub(r"self: [\w.]+(, )?", "", signature or "") or signature, returns


def without_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple, of which Python says "Alias for field number 0" only."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app):
    """Connect the above."""
    app.connect("source-read", read_page)
    app.connect("missing-reference", internal_name)
    app.connect("autodoc-skip-member", without_tuple_fields)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-process-signature", without_compiled_module)
