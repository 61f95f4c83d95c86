"""Files of a folder that are not used, counted by ending and reason."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hfbench.data.kinds import OTHER_SUFFIXES, PLURALS, READERS, Kind, is_of, printable

SHOWN_ENDINGS = 8


def describe_leftovers(files: Iterable[Path], folder: Path, kind: Kind, place: str) -> list[str]:
    """A note for each reason.

    ``kind`` is what the folder holds; ``place`` says why a file of this kind is not used, such as
    ``they are in no class folder``.
    """
    reasons: dict[str, list[Path]] = {}
    for file in files:
        reasons.setdefault(_reason(file, kind, place), []).append(file)
    return [unused(found, folder, reason) for reason, found in reasons.items()]


def unused(files: Sequence[Path], folder: Path, reason: str) -> str:
    """``files`` is not empty; ``reason`` says what they are."""
    first = printable(str(files[0].relative_to(folder)))
    return (
        f"files that are not used, as {reason}: {len(files):,} ({_endings(files)}; the first: "
        f"{first})"
    )


def _reason(file: Path, kind: Kind, place: str) -> str:
    if is_of(file, kind):
        return place
    if file.suffix.lower() in OTHER_SUFFIXES[kind]:
        return READERS[kind]
    return f"they are no {PLURALS[kind]}"


def _endings(files: Iterable[Path]) -> str:
    """``3 .txt, 1 .md``, the most frequent first."""
    counts = Counter(printable(file.suffix.lower()) or "without an ending" for file in files)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {ending}" for ending, count in ordered[:SHOWN_ENDINGS]]
    return ", ".join(shown + ["..."] * (len(counts) > SHOWN_ENDINGS))
