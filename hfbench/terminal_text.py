"""Text that shows what it is: what a terminal would obey is written in letters.

Standard library only.
"""

import re

# ESC, the return to a line's beginning and the other controls (C0 without tab and line feed, DEL,
# C1, which some terminals read as ESC and a letter), separators that break lines, and marks that
# turn the direction of writing. Directions of Unicode: UAX 9.
_OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# What tqdm writes: to a line's beginning before a bar, and up and down between bars.
_BAR = re.compile(r"\r+|(?:\n|\x1b\[A)+\Z")


def visible(text: str) -> str:
    r"""``text`` with what a terminal would obey as JSON writes it, ESC as ``\u001b``.

    Tabs and line feeds stay.
    """
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def visible_beside_bars(text: str) -> str:
    """The same of what one call prints, where progress bars may be drawn too."""
    moves = _BAR.match(text)
    begin = moves.end() if moves else 0
    return text[:begin] + visible(text[begin:])
