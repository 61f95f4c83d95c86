"""Labels that are written in several ways: the same one, two that look alike, or an error."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfbench.errors import UserError

SHOWN = 5  # groups of labels that a note names
_WHOLE = re.compile(r"([+-]?\d+)\.0+")  # 1.0
_FRACTION = re.compile(r"v?\d+(\.\d+)+\w*")  # 1.5, and versions
_TRUTH = {"true", "false"}
_INVISIBLE = dict.fromkeys(map(ord, "\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}\u00ad"))


@dataclass
class Spelling:
    """One way to write a label: how many rows have it, and the first of them."""

    rows: int
    first: int


@dataclass(frozen=True)
class Settled:
    """Names of labels; ``merged``: what is written in train -> its name; notes for people."""

    names: frozenset[str]
    merged: Mapping[str, str]
    notes: tuple[str, ...]


def count_spellings(written: Iterable[tuple[int, str]]) -> dict[str, Spelling]:
    """Of rows, ascending, and what is written there."""
    found: dict[str, Spelling] = {}
    for row, text in written:
        if text in found:
            found[text].rows += 1
        else:
            found[text] = Spelling(1, row)
    return found


def reading_notes(values: Sequence[Any], place: Callable[[int], str]) -> list[str]:
    """On texts that lose white space around them, and on those whose Unicode forms become one."""
    texts = [(row, value) for row, value in enumerate(values) if isinstance(value, str)]
    spaced = [(row, text) for row, text in texts if text.strip() != text and text.strip()]
    decomposed = [(row, text) for row, text in texts if not unicodedata.is_normalized("NFC", text)]
    return [
        f"labels are read without {what}: {counted_rows(len(found))}, the first: "
        f"{place(found[0][0])} ({found[0][1]!r})"
        for found, what in (
            (spaced, "the white space around them"),
            (decomposed, "decomposed letters, in Unicode's form NFC"),
        )
        if found
    ]


def settle(found: Mapping[str, Spelling], column: str, place: Callable[[int], str]) -> Settled:
    """Merges 1.0 with 1; notes names that differ in case, white space or zeros before a number.

    Raises UserError where 1 stands beside True, and 1 beside 1.0 and 1.5 or 1.0.2.
    """

    def listed(names: Iterable[str]) -> str:
        return ", ".join(
            f"{name!r} ({counted_rows(found[name].rows)}, the first: {place(found[name].first)})"
            for name in sorted(names, key=lambda name: found[name].first)
        )

    truths = {name for name in found if name.lower() in _TRUTH}
    bits = {name for name in found if whole(name) in ("0", "1")}
    if truths and bits:
        raise UserError(
            f"column {column!r} writes labels in several ways: {listed(truths | bits)}; write each "
            "label in one way"
        )
    merged = {name: whole(name) for name in found if whole(name) != name and whole(name) in found}
    if merged and any(map(has_fraction, found)):
        both = {*merged, *merged.values()}
        raise UserError(
            f"column {column!r} holds {listed(both)} beside numbers with fractions or versions: "
            "are they one label? Write each label in one way"
        )
    notes = [
        f"labels {one} and {other} are one label, {other}: whole numbers, "
        f"{counted_rows(found[one].rows)} and {counted_rows(found[other].rows)}"
        for one, other in sorted(merged.items())
    ]
    names = frozenset(found) - set(merged)
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(alike(name), []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    if several:
        more = f", and {len(several) - SHOWN:,} more groups" if len(several) > SHOWN else ""
        notes.append(
            "labels that differ only in case, white space or the like are different labels: "
            f"{'; '.join(map(listed, several[:SHOWN]))}{more}"
        )
    return Settled(names, merged, tuple(notes))


def counted_rows(count: int) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def whole(name: str) -> str:
    """``1`` of ``1.0``; any other name as it is."""
    found = _WHOLE.fullmatch(name)
    return name if found is None else found[1]


def has_fraction(name: str) -> bool:
    """Whether it is a number with a fraction, or a version."""
    return _FRACTION.fullmatch(name) is not None and whole(name) == name


def alike(name: str) -> str:
    """The same for names that people may take for one."""
    text = unicodedata.normalize("NFKC", name).translate(_INVISIBLE)
    text = " ".join(text.split()).casefold()
    return str(int(text)) if text.isdecimal() else text
