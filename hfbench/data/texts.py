"""Train, validation and test texts without labels: to be continued, or prompts with completions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.carving import (
    by_chance,
    carve,
    choose_splits,
    from_the_end,
    subset,
    unused_splits,
)
from hfbench.data.columns import detect_texts
from hfbench.data.rows import Table
from hfbench.data.sources import load_source
from hfbench.data.splits import fingerprint
from hfbench.errors import UserError


@dataclass(frozen=True)
class TextSplits:
    """Texts in one shape, whatever they came from.

    Attributes:
        train, validation, test: the column ``text`` and, where texts are prompts, ``completion``.
        summary: as that of :class:`hfbench.data.splits.Splits`, without labels.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    summary: dict[str, Any]


def load_texts(data: DataConfig) -> TextSplits:
    """Load and split ``data.source``; rows with an empty text are left out, and the notes say so.

    A missing test or validation split is taken from train, the same for all runs: rows by chance,
    or of a single text the lines at its end. Of prompts ``max_train_samples`` and
    ``max_eval_samples`` then keep a random subset; of plain texts they limit the packed blocks.

    Raises UserError for unknown splits and columns, for what is no text, for an empty split and for
    ``max_bad_rows``, which would change nothing here.
    """
    if data.max_bad_rows:
        raise UserError(
            f"data.max_bad_rows={data.max_bad_rows} is for data with labels or recordings: leave "
            "it out; rows without a text are left out here in any number, and a note counts them"
        )
    source = load_source(data)
    raw = source.splits
    chosen = choose_splits(data, list(raw))
    train = source.tables[chosen["train"]]
    text, completion = detect_texts(train.rows, data, train.unread)
    columns = {"text": text} | ({} if completion is None else {"completion": completion})
    notes = [*source.notes_on(chosen), *unused_splits(data, raw, chosen)]
    splits = {
        role: _shaped(source.tables[split], columns, split, notes) for role, split in chosen.items()
    }
    _carve(splits, data, notes)
    if completion is not None:
        splits = {role: subset(rows, limit_of(role, data)) for role, rows in splits.items()}
    summary = {
        "source": data.source if data.name is None else f"{data.source} ({data.name})",
        **{role: len(splits[role]) for role in ("train", "validation", "test")},
        "columns": columns,
        "labels": [],
        "notes": notes,
        "bad_rows": {},
        "fingerprint": fingerprint(splits),
    }
    return TextSplits(splits["train"], splits["validation"], splits["test"], summary)


def limit_of(role: str, data: DataConfig) -> int | None:
    """How many samples of a split are used at most."""
    return data.max_train_samples if role == "train" else data.max_eval_samples


def _shaped(table: Table, columns: Mapping[str, str], split: str, notes: list[str]) -> Dataset:
    dataset = table.rows
    missing = [name for name in columns.values() if name not in dataset.column_names]
    if missing:
        why = table.unread.get(missing[0])
        raise UserError(
            f"split {split!r} lacks the column {missing[0]!r} of train; it has: "
            f"{', '.join(dataset.column_names)}"
            f"{'' if why is None else f', and {missing[0]!r} cannot be read: {why}'}"
        )
    values = {
        kind: ["" if text is None else text for text in dataset[name][:]]
        for kind, name in columns.items()
    }
    for kind, texts in values.items():
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(
                    f"split {split!r}, {table.described(row)}: column {columns[kind]!r} holds "
                    f"{text!r}, no text"
                )
    rows = list(zip(*values.values(), strict=True))
    kept = [row for row in rows if all(text.strip() for text in row)]
    if not kept:
        raise UserError(f"split {split!r} has no row with a text in {', '.join(columns.values())}")
    if len(kept) < len(rows):
        notes.append(f"split {split!r}: {len(rows) - len(kept):,} rows without text were left out")
    return Dataset.from_dict(dict(zip(values, map(list, zip(*kept, strict=True)), strict=True)))


def _carve(splits: dict[str, Dataset], data: DataConfig, notes: list[str]) -> None:
    """Take missing splits from train: rows by chance, or of a single text the lines at its end."""
    carved = [role for role in ("test", "validation") if role not in splits]
    train = splits["train"]
    if not carved or len(train) > 1 or "completion" in train.column_names:
        carve(splits, data, notes, take=by_chance, chosen_by="by chance")
        return
    splits["train"] = Dataset.from_dict({"text": train[0]["text"].splitlines(True)})
    carve(splits, data, notes, take=from_the_end, chosen_by="from its end", unit="lines")
    for role in ("train", *carved):
        splits[role] = Dataset.from_dict({"text": ["".join(splits[role]["text"][:])]})
