"""Rows of files: where each stands, which columns could not be read, what was not used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from datasets import Dataset

Place = Callable[[int], str]  # a row, from 0 -> where it stands, for people


@dataclass(frozen=True)
class Table:
    """The rows of one file, or of one split.

    Attributes:
        rows: the columns that can be read.
        unread: column -> why it cannot be read and is not among them.
        place: of a row, such as ``reviews.csv, line 7``; None where it is not known.
        notes: what was replaced on reading, for people.
    """

    rows: Dataset
    unread: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None
    notes: tuple[str, ...] = ()

    def described(self, row: int) -> str:
        """``row 5``, and where it stands."""
        return f"row {row}" if self.place is None else f"row {row} ({self.place(row)})"


@dataclass(frozen=True)
class Source:
    """All splits of some data, by the names that the data give them.

    Attributes:
        tables: split -> its rows.
        notes: which files were not used and why, for people.
    """

    tables: Mapping[str, Table]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, splits: Mapping[str, Dataset]) -> "Source":
        """Of splits in which everything was read."""
        return cls({name: Table(rows) for name, rows in splits.items()})

    @property
    def splits(self) -> dict[str, Dataset]:
        """Only the rows that were read."""
        return {name: table.rows for name, table in self.tables.items()}

    def notes_on(self, splits: Mapping[str, str]) -> list[str]:
        """What to say before the training of these: role -> name."""
        notes = list(self.notes)
        for name in splits.values():
            table = self.tables[name]
            notes += table.notes
            notes += [
                f"split {name!r}: the column {column!r} is left out, as it cannot be read: {why}"
                for column, why in table.unread.items()
            ]
        return notes
