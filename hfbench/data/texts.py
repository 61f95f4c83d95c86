"""Train, validation and test texts without labels: to be continued, or prompts with completions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.columns import detect_texts
from hfbench.data.sources import load_source
from hfbench.data.splits import SPLIT_SEED, choose_splits, fingerprint, stratified_split, subset
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

    Raises UserError for unknown splits and columns, for what is no text and for an empty split.
    """
    raw = load_source(data)
    chosen = choose_splits(data, list(raw))
    text, completion = detect_texts(raw[chosen["train"]], data)
    columns = {"text": text} | ({} if completion is None else {"completion": completion})
    notes: list[str] = []
    splits = {role: _shaped(raw[split], columns, split, notes) for role, split in chosen.items()}
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


def _shaped(dataset: Dataset, columns: Mapping[str, str], split: str, notes: list[str]) -> Dataset:
    missing = [name for name in columns.values() if name not in dataset.column_names]
    if missing:
        raise UserError(
            f"split {split!r} lacks the column {missing[0]!r} of train; it has: "
            f"{', '.join(dataset.column_names)}"
        )
    values = {kind: dataset[name][:] for kind, name in columns.items()}
    for kind, texts in values.items():
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(
                    f"split {split!r}, row {row}: column {columns[kind]!r} holds {text!r}, no text"
                )
    rows = list(zip(*values.values(), strict=True))
    kept = [row for row in rows if all(text.strip() for text in row)]
    if not kept:
        raise UserError(f"split {split!r} has no row with a text in {', '.join(columns.values())}")
    if len(kept) < len(rows):
        notes.append(f"split {split!r}: {len(rows) - len(kept):,} rows without text were left out")
    return Dataset.from_dict(dict(zip(values, map(list, zip(*kept, strict=True)), strict=True)))


def _carve(splits: dict[str, Dataset], data: DataConfig, notes: list[str]) -> None:
    """Take missing splits from train, test first, as fractions of the whole train split."""
    single = len(splits["train"]) == 1 and "completion" not in splits["train"].column_names
    if single and len(splits) < 3:
        splits["train"] = Dataset.from_dict({"text": splits["train"][0]["text"].splitlines(True)})
    whole, unit = len(splits["train"]), "lines" if single else "samples"
    for role, fraction in (("test", data.test_fraction), ("validation", data.validation_fraction)):
        if role in splits:
            continue
        train = splits["train"]
        count = len(train)
        if single:
            kept = list(range(count - round(fraction * whole)))
            taken = list(range(len(kept), count))
        else:
            kept, taken = stratified_split([0] * count, fraction * whole / count, SPLIT_SEED)
        if not taken or not kept:
            raise UserError(
                f"{data.source!r} has no {role} split and {whole} {unit} are too few to take "
                f"{fraction:g} of them: raise data.{role}_fraction"
            )
        splits["train"], splits[role] = train.select(kept), train.select(taken)
        where = "from the end of" if single else "by chance from"
        notes.append(
            f"no {role} split: {len(taken):,} {unit} were taken {where} train (the same for every "
            "seed)"
        )
    if single:
        for role, lines in splits.items():
            splits[role] = Dataset.from_dict({"text": ["".join(lines["text"][:])]})
