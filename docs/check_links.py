"""Check the links of the built site without a network: ``python docs/check_links.py build/site``.

Links within the site must lead to a file and, with an anchor, to an element of that page. Links to other hosts are
checked for their form only. No page may load a script, style, font or image from another host.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Elements that load a file when a page is viewed. Other ``link`` elements, such as "next", only refer to a page.
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect"}


class Page(HTMLParser):
    """The anchors of a page, its links, and the files that it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element has."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.loads += [values[name] for element, name in LOADS if element == tag and name in values]
        if tag == "link" and LOADING_RELATIONS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])


def problems_of(site: Path) -> list[str]:
    """Every broken link and every file that is loaded from another host."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    problems = [f"{site}: no pages"] if not pages else []

    def check(page: Path, target: str) -> str | None:
        parts = urlsplit(target)
        if parts.scheme in ("http", "https"):
            return None if re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc) else "is not the address of a host"
        if parts.scheme == "mailto" or target.startswith("javascript:void"):
            return None
        if parts.scheme or parts.netloc:
            return "has an unknown scheme"
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        file = file / "index.html" if file.is_dir() else file
        if not file.is_file():
            return "leads to no file"
        if not file.is_relative_to(site.resolve()):
            return "leads out of the site"
        if parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors | {"top"}:
            return "leads to no anchor"
        return None

    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        checked = ((target, check(path, target)) for target in [*page.links, *page.loads])
        problems += [f"{name}: {target} {problem}" for target, problem in checked if problem]
        problems += [f"{name}: loads {target} from another host" for target in page.loads if urlsplit(target).netloc]
    for style in sorted(site.rglob("*.css")):
        foreign = re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"')]+", style.read_text())
        problems += [f"{style.relative_to(site)}: loads {each}" for each in foreign]
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values()):,} links, {len(problems)} problems")
    return problems


if __name__ == "__main__":
    found = problems_of(Path(sys.argv[1]))
    print(*found, sep="\n")
    sys.exit(1 if found else 0)
