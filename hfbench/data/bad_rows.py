"""Rows of the data that cannot be read: counted, listed in a file, and skipped up to a limit."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hfbench.data.rows import Place, Table
from hfbench.disk import write_whole
from hfbench.errors import UserError

SHOWN = 5  # rows in the message


@dataclass(frozen=True)
class BadRow:
    """One row.

    Attributes:
        split: as the data call it, also for a sample that was taken from train for testing.
        row: in that split, from 0.
        file: the image or recording; None for what stands in the data themselves.
        reason: why it cannot be used.
        place: where the row stands, such as ``reviews.csv, line 7``; None where that is not known.
    """

    split: str
    row: int
    file: str | None
    reason: str
    place: str | None = None

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.place, self.file) if part is not None)
        return f"{self.split} row {self.row}{f' ({where})' if where else ''}: {self.reason}"


class BadRows:
    """What preparing the data has found so far."""

    def __init__(self, *, limit: int, file: Path | None = None) -> None:
        """``limit``: ``data.max_bad_rows``; ``file``: where ``check`` lists them all."""
        self.limit, self.file = limit, file
        self._found: dict[str, list[BadRow]] = {}
        self._places: dict[str, Place] = {}

    def know_places(self, tables: Mapping[str, Table]) -> None:
        """Where the rows of each split stand; those added from now on name it."""
        self._places = {split: t.place for split, t in tables.items() if t.place is not None}

    def add(self, split: str, row: int, reason: str, *, file: str | None = None) -> None:
        place = self._places[split](row) if split in self._places else None
        self._found.setdefault(split, []).append(BadRow(split, row, file, reason, place))

    @property
    def found(self) -> tuple[BadRow, ...]:
        """Split by split, in the order of the rows."""
        parts = self._found.values()
        return tuple(row for part in parts for row in sorted(part, key=lambda row: row.row))

    def check(self) -> None:
        """Raise UserError where there are more than the limit, after listing them in the file."""
        found = self.found
        if len(found) <= self.limit:
            return
        listed = ""
        if self.file is not None:
            write_bad_rows(self.file, found)
            listed = f", all listed in {self.file}"
        first = "".join(f"\n  {row}" for row in found[:SHOWN])
        more = len(found) - SHOWN
        raise UserError(
            f"rows that cannot be used: {len(found):,}{listed}:{first}"
            f"{f'{chr(10)}  and {more:,} more' if more > 0 else ''}\nMend or remove them, or skip "
            f"them with data.max_bad_rows={len(found)} (it is {self.limit})"
        )

    def counts(self) -> dict[str, int]:
        """How many there are of each split."""
        return dict(Counter(row.split for row in self.found))


def write_bad_rows(file: Path, rows: Sequence[BadRow]) -> None:
    """One JSON object a line; without rows there is no file afterwards.

    Raises UserError where it cannot be written.
    """
    try:
        if rows:
            lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
            write_whole(file, "".join(lines))
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {str(file)!r}: {error.strerror or error}") from error
