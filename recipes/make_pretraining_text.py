"""Turns folders of HTML documentation into plain text for pretrain_text.py.

    apt-get install postgresql-doc-15 sqlite3-doc
    python recipes/make_pretraining_text.py corpus sqlite=/usr/share/doc/sqlite3 \
        postgresql=/usr/share/doc/postgresql-doc-15/html

writes corpus/postgresql.txt and corpus/sqlite.txt: UTF-8, one paragraph a line, each once.
"""

import argparse
import re
from html.parser import HTMLParser
from pathlib import Path

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
LISTS = ("ul", "ol", "dl", "li", "dt", "dd")
PARAGRAPH_TAGS = frozenset(("p", "div", "section", "table", "td", "th", *HEADINGS, *LISTS))
SKIPPED_TAGS = frozenset(
    ("script", "style", "pre", "nav", "header", "footer", "head", "svg", "select", "button")
)
MIN_WORDS = 8
MIN_WORDLIKE = 0.7  # share of tokens that are words, not numbers or code


class ParagraphParser(HTMLParser):
    """Collects the text between block-level tags in `paragraphs`."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._open = ""
        self._skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SKIPPED_TAGS:
            self._skipped.append(tag)
        elif tag in PARAGRAPH_TAGS:
            self.end_paragraph()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            while self._skipped.pop() != tag:
                pass
        elif tag in PARAGRAPH_TAGS:
            self.end_paragraph()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._open += data

    def end_paragraph(self) -> None:
        text = " ".join(self._open.replace("¶", " ").split())
        self._open = ""
        if text:
            self.paragraphs.append(text)


def is_prose(text: str) -> bool:
    words = text.split()
    wordlike = sum(bool(re.fullmatch(r"[(\"']?[A-Za-z][a-z'-]*[.,;:)\"']*", w)) for w in words)
    return len(words) >= MIN_WORDS and wordlike >= MIN_WORDLIKE * len(words)


def paragraphs_of(folder: Path) -> list[str]:
    """The distinct prose paragraphs of all HTML files under `folder`, in order."""
    pages = sorted(folder.rglob("*.html"))
    if not pages:
        raise SystemExit(f"no .html files under {folder}: is the documentation installed there?")
    found: dict[str, None] = {}
    for page in pages:
        parser = ParagraphParser()
        parser.feed(page.read_text(encoding="utf-8", errors="replace"))
        parser.end_paragraph()
        found.update((text, None) for text in parser.paragraphs if is_prose(text))
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="folder for the .txt files")
    parser.add_argument("sources", nargs="+", metavar="NAME=FOLDER")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for source in args.sources:
        name, separator, folder = source.partition("=")
        if not separator:
            parser.error(f"{source!r} is not of the form NAME=FOLDER")
        paragraphs = paragraphs_of(Path(folder))
        path = args.output / f"{name}.txt"
        path.write_text("\n".join(paragraphs) + "\n", encoding="utf-8")
        print(f"{path}: {len(paragraphs):,} paragraphs, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
