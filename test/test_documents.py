"""Links of the documents lead somewhere: files, their headings, and what the code says of docs/."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)")
MENTION = re.compile(r"\bdocs/[\w/-]+\.(?:md|json)(?:#[\w-]+)?")


def prose(path: Path) -> list[str]:
    """Lines without code: neither fenced nor indented blocks, nor what stands between backticks."""
    lines, fenced, blank, code = [], False, True, False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        code = line.startswith("    ") and (blank or code) and not fenced
        if not fenced and not code:
            lines.append(line)
        blank = not line.strip() or (blank and code)
    return lines


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading's text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(path: Path) -> frozenset[str]:
    """Of all headings, and those that are written as ``<a id="...">``."""
    found: set[str] = set()
    for line in prose(path):
        if heading := re.match(r"#{1,6} +(.*)", line):
            name, number = anchor(heading.group(1)), 0
            while (unique := f"{name}-{number}" if number else name) in found:
                number += 1
            found.add(unique)
        found |= set(re.findall(r"<a id=\"([^\"]+)\">", line))
    return frozenset(found)


def problem(base: Path, target: str) -> str:
    """What is wrong with a link from the folder ``base``, or ""; ``base`` is a file for ``#...``."""
    name, _, fragment = target.partition("#")
    folder = base.parent if base.is_file() else base
    file = (folder / name).resolve() if name else base
    if not file.exists():
        return f"{target}: no such file"
    if fragment and file.suffix == ".md" and fragment not in anchors(file):
        return f"{target}: no such heading"
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_resolves(path: Path):
    links = LINK.findall("\n".join(prose(path)))
    relative = [link for link in links if not re.match(r"[a-z]+:", link)]
    wrong = [found for link in relative if (found := problem(path, link))]
    assert not wrong, wrong


def test_documents_that_are_named_exist():
    """Wherever a file below docs/ is named: documents, code, configuration, tests."""
    folders = ("dexpie_ros", "config", "launch", "test", "scripts")
    files = [*DOCUMENTS, *(f for folder in folders for f in (ROOT / folder).rglob("*"))]
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in files
        if path.suffix in (".py", ".md", ".yaml", ".js", ".html", ".sh")
        for name in MENTION.findall(path.read_text(encoding="utf-8"))
        if (found := problem(ROOT, name))
    }
    assert not wrong, wrong


def test_every_document_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        links = (link.partition("#")[0] for link in LINK.findall("\n".join(prose(path))))
        waiting += [f for link in links if link and (f := (path.parent / link).resolve()).is_file()]
    missing = [str(path.relative_to(ROOT)) for path in DOCUMENTS if path not in seen]
    assert not missing, missing


def test_a_wrong_link_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text('# A, `b`: c\n## Same\n## Same\n<a id="old"></a>\n\n    # no heading\n')
    assert anchors(page) == {"a-b-c", "same", "same-1", "old"}
    assert problem(page, "#same-1") == problem(page, "page.md#old") == ""
    assert "heading" in problem(page, "#no-heading")
    assert "file" in problem(page, "other.md")
