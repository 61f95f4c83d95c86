"""Text of others inside Markdown: shown as it is, whatever it contains.

A heading, a paragraph or a cell of a table is escaped unless it is :class:`Markdown` already, so
that no label, name or reason becomes a link, an image, HTML or another column. Escapes: CommonMark
0.31, sections 2.4 and 2.5; tables and bare links: GitHub Flavored Markdown. Standard library only.
"""

import html
import re

from hfbench.terminal_text import visible

# What begins something wherever it stands; _ between letters does not.
_MARKS = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_ENTITY = re.compile("[&<>|]")
_LINK = re.compile(r"(?<=\w):(?=//)|(?<=www)\.|@", re.IGNORECASE)  # that pages make of bare text
_AT_START = re.compile(r"^([-+#=]|\d+(?=[.)]))(.?)")
_NEEDS_HTML = re.compile("[`|]")


class Markdown(str):
    """Text that is Markdown: made by us, with everything of others in it escaped."""


def escaped(text: str) -> Markdown:
    """Text as Markdown that shows it on one line, within a line; Markdown stays as it is."""
    if isinstance(text, Markdown):
        return text
    line = " ".join(visible(text).split())
    line = _MARKS.sub(lambda found: f"\\{found[0]}", line)
    line = _ENTITY.sub(lambda found: _ENTITIES[found[0]], line)
    return Markdown(_LINK.sub(lambda found: f"&#{ord(found[0])};", line))


def escaped_line(text: str) -> Markdown:
    """The same where it begins a line, and would begin a list, a heading or a rule there."""
    if isinstance(text, Markdown):
        return text
    return Markdown(_AT_START.sub(_without_start, escaped(text)))


def code_span(text: str) -> Markdown:
    """Somebody's own text, such as a label, in the type of code.

    HTML where it has a backtick, which would end the code, or what separates columns.
    """
    line = " ".join(visible(text).split())
    if line and not _NEEDS_HTML.search(line):
        return Markdown(f"`{line}`")
    shown = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in line)
    return Markdown(f"<code>{shown}</code>")


def fenced(text: str, language: str = "") -> Markdown:
    """A block of code; its fence is longer than any row of backticks inside."""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return Markdown(f"{fence}{language}\n{text}{end}{fence}")


def folded(summary: str, text: Markdown) -> Markdown:
    """Markdown that is shown when somebody opens it."""
    return Markdown(f"<details><summary>{html.escape(summary)}</summary>\n\n{text}\n\n</details>")


def _without_start(found: re.Match[str]) -> str:
    mark, next_one = found.groups()
    return f"{mark}\\{next_one}" if mark.isdigit() else f"\\{mark}{next_one}"
