"""Labelled train, validation and test data from any source."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Image, Value

from hfbench.config import DataConfig
from hfbench.data.columns import Columns, Modality, detect_columns, encode_labels, label_names
from hfbench.data.sources import load_source
from hfbench.errors import UserError

SPLIT_SEED = 0  # not the run's: all seeds of a comparison share their splits
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
TEST_NAMES = ("test",)
MEDIA = ("image", "audio")  # columns of splits that hold files or encoded bytes


@dataclass(frozen=True)
class Splits:
    """Data in one shape, whatever they came from.

    Attributes:
        train, validation, test: columns ``text`` (and ``text_pair``), or ``image``, or ``audio``
            (still encoded: a path, bytes, or a dict with ``bytes`` and ``path``), and ``labels``
            (int64, position in ``label_names``).
        summary: source, split sizes, columns, labels, notes on what was decided, fingerprint.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: tuple[str, ...]
    summary: dict[str, Any]


def load_splits(data: DataConfig, modality: Modality) -> Splits:
    """Load, label and split ``data.source``.

    A missing validation or test split is taken from train, stratified by label, the same for all
    runs. ``max_train_samples`` and ``max_eval_samples`` then keep a random subset, also the same.

    Raises UserError for unknown splits and columns, missing labels, labels that train lacks, an
    empty split and a single label.
    """
    raw = load_source(data)
    chosen = _choose_splits(data, list(raw))
    columns = detect_columns(raw[chosen["train"]], data, modality)
    names = label_names(raw[chosen["train"]], columns.label)
    notes: list[str] = []
    splits = {}
    for role, split in chosen.items():
        if len(raw[split]) == 0:
            raise UserError(f"split {split!r} of {data.source!r} is empty")
        own = _columns_of(raw[split], columns, modality, split, notes)
        splits[role] = _in_one_shape(raw[split], own, names, data, modality, split)
    _check_labels(splits, names, data.source)
    _carve(splits, data, notes)
    for role, limit in (
        ("train", data.max_train_samples),
        ("validation", data.max_eval_samples),
        ("test", data.max_eval_samples),
    ):
        splits[role] = _subset(splits[role], limit)
    summary = {
        "source": data.source if data.name is None else f"{data.source} ({data.name})",
        **{role: len(splits[role]) for role in ("train", "validation", "test")},
        "columns": {modality: columns.input, "label": columns.label}
        | ({} if columns.text_pair is None else {"text_pair": columns.text_pair}),
        "labels": list(names),
        "notes": notes,
        "fingerprint": fingerprint(splits),
    }
    return Splits(splits["train"], splits["validation"], splits["test"], names, summary)


def describe(summary: Mapping[str, Any]) -> str:
    """The summary as a few lines for people."""
    labels = list(summary["labels"])
    shown = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
    columns = ", ".join(f"{kind} = {name}" for kind, name in summary["columns"].items())
    lines = [
        f"data: {summary['source']}; {summary['train']:,} train, {summary['validation']:,} "
        f"validation, {summary['test']:,} test",
        f"columns: {columns}; {len(labels)} labels: {shown}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in summary["notes"])])


def stratified_split(
    labels: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Positions that stay and positions that are taken, both in their old order.

    Of every label the nearest whole number to ``fraction`` is taken, but never all of it.
    """
    generator = np.random.default_rng(seed)
    values = np.asarray(labels)
    taken: list[int] = []
    for label in np.unique(values):
        positions = generator.permutation(np.flatnonzero(values == label))
        count = min(round(len(positions) * fraction), len(positions) - 1)
        taken.extend(positions[:count].tolist())
    chosen = set(taken)
    return [i for i in range(len(values)) if i not in chosen], sorted(taken)


def fingerprint(splits: Mapping[str, Dataset]) -> str:
    """16 hexadecimal digits of the contents: of a file only its name and size are read.

    Costs one pass over every row: texts and embedded images or sounds are read and hashed whole
    (about 1 GB a second, or the speed of the disk), files are only asked for their size.
    """
    digest = hashlib.sha256()
    for role in ("train", "validation", "test"):
        for rows in splits[role].iter(batch_size=100):
            for name in sorted(rows):
                for value in rows[name]:
                    content = _media_content(value) if name in MEDIA else str(value).encode()
                    digest.update(f"{role} {name} ".encode() + content + b"\n")
    return digest.hexdigest()[:16]


def _media_content(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return hashlib.sha256(value).digest()
    if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_file():
        return f"{Path(value).name} {Path(value).stat().st_size}".encode()
    return str(value).encode()


def _choose_splits(data: DataConfig, available: list[str]) -> dict[str, str]:
    """Role -> split's name; a role without a split is left out."""
    configured = {
        "train": data.train_split,
        "validation": data.validation_split,
        "test": data.test_split,
    }
    for role, split in configured.items():
        if split is not None and split not in available:
            raise UserError(
                f"data.{role}_split={split!r} is not in {data.source!r}; "
                f"its splits are: {', '.join(available)}"
            )
    chosen = {role: split for role, split in configured.items() if split is not None}
    for role, names in (("validation", VALIDATION_NAMES), ("test", TEST_NAMES)):
        free = [name for name in names if name in available and name not in chosen.values()]
        if role not in chosen and free:
            chosen[role] = free[0]
    if len(set(chosen.values())) < len(chosen):
        raise UserError(
            f"one split is used twice ({chosen}): set data.validation_split and data.test_split "
            "to different ones, or leave them out to have them taken from train"
        )
    return chosen


def _columns_of(
    dataset: Dataset,
    columns: Columns,
    modality: Modality,
    split: str,
    notes: list[str],
) -> Columns:
    """The columns of this split: those of train, or detected anew where the names differ."""
    needed = {columns.input, columns.label}
    if columns.text_pair is not None:
        needed.add(columns.text_pair)
    if needed <= set(dataset.column_names):
        return columns
    try:
        own = detect_columns(dataset, DataConfig(), modality)
    except UserError as error:
        raise UserError(
            f"split {split!r} lacks the columns {', '.join(sorted(needed))} of train ({error})"
        ) from error
    for theirs, ours in ((own.input, columns.input), (own.label, columns.label)):
        if theirs != ours:
            notes.append(f"in split {split!r} the column {theirs!r} is read as {ours!r}")
    if (own.text_pair is None) != (columns.text_pair is None):
        raise UserError(f"split {split!r} lacks the column {columns.text_pair!r} of train")
    return own


def _in_one_shape(
    dataset: Dataset,
    columns: Columns,
    names: tuple[str, ...],
    data: DataConfig,
    modality: Modality,
    split: str,
) -> Dataset:
    labels = encode_labels(dataset, columns.label, names, split)
    renamed = {columns.input: str(modality)}
    if columns.text_pair is not None:
        renamed[columns.text_pair] = "text_pair"
    shaped = dataset.select_columns(list(renamed))
    shaped = shaped.rename_columns({old: new for old, new in renamed.items() if old != new})
    for new in renamed.values():
        if modality == "text":
            _check_text(shaped, new, split)
            continue
        _check_given(shaped, new, split, columns.input)
        if isinstance(shaped.features[new], (Image, Audio)):
            undecoded = Image(decode=False) if modality == "image" else Audio(decode=False)
            shaped = shaped.cast_column(new, undecoded)
        elif shaped.features[new] == Value("string"):
            shaped = _absolute_paths(shaped, new, Path(data.source).expanduser())
    return shaped.add_column("labels", np.asarray(labels, dtype=np.int64))


def _check_text(dataset: Dataset, column: str, split: str) -> None:
    for row, text in enumerate(dataset[column][:]):
        if not isinstance(text, str):
            raise UserError(
                f"split {split!r}, row {row}: column {column!r} holds {text!r}, no text"
            )


def _check_given(dataset: Dataset, column: str, split: str, name: str) -> None:
    present = dataset.data.column(column).is_valid().to_pylist()
    if not all(present):
        raise UserError(
            f"split {split!r}, row {present.index(False)}: column {name!r} is empty; every row "
            "needs a file or its bytes"
        )


def _absolute_paths(dataset: Dataset, column: str, source: Path) -> Dataset:
    """Paths in a table are relative to the table's folder."""
    folder = source if source.is_dir() else source.parent
    paths = [str((folder / path).absolute()) for path in dataset[column][:]]
    return Dataset.from_dict({column: paths})


def _check_labels(splits: Mapping[str, Dataset], names: tuple[str, ...], source: str) -> None:
    known = set(splits["train"]["labels"][:])
    if len(known) < 2:
        raise UserError(
            f"train of {source!r} has a single label ({', '.join(names)}): nothing can be learnt; "
            "check data.label_column and data.train_split"
        )
    for role, split in splits.items():
        if foreign := sorted(set(split["labels"][:]) - known):
            raise UserError(
                f"{role} has the label {names[foreign[0]]!r}, which train lacks; train has: "
                f"{', '.join(names[label] for label in sorted(known))}"
            )


def _carve(splits: dict[str, Dataset], data: DataConfig, notes: list[str]) -> None:
    """Take missing splits from train, test first, as fractions of the whole train split."""
    whole = len(splits["train"])
    for role, fraction in (("test", data.test_fraction), ("validation", data.validation_fraction)):
        if role in splits:
            continue
        train = splits["train"]
        kept, taken = stratified_split(
            train["labels"][:], fraction * whole / len(train), SPLIT_SEED
        )
        if not taken:
            raise UserError(
                f"{data.source!r} has no {role} split and {whole} samples are too few to take "
                f"{fraction:g} of them: raise data.{role}_fraction"
            )
        # Datasets hashes what it selects: an array whole, a list number by number.
        splits["train"], splits[role] = (train.select(np.asarray(part)) for part in (kept, taken))
        notes.append(
            f"no {role} split: {len(taken):,} samples were taken from train (stratified, the same "
            "for every seed)"
        )


def _subset(dataset: Dataset, limit: int | None) -> Dataset:
    if limit is None or limit >= len(dataset):
        return dataset
    order = np.random.default_rng(SPLIT_SEED).permutation(len(dataset))
    return dataset.select(sorted(order[:limit].tolist()))
