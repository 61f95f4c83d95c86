"""Labelled train, validation and test data from any source."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Features, Image, List, Value

from hfbench.config import DataConfig, ProblemType
from hfbench.data.bad_rows import BadRows
from hfbench.data.carving import ROW, Origin, carve, choose_splits, limited, unused_splits
from hfbench.data.columns import Columns, Modality, detect_columns, is_string
from hfbench.data.coverage import describe_missing, rows_of_labels, with_every_label_first
from hfbench.data.duplicates import describe_duplicates, find_duplicates
from hfbench.data.labels import Encoded, Labels, Problems, find_labels
from hfbench.data.media import media_content, media_path
from hfbench.data.rows import Table
from hfbench.data.sources import load_source
from hfbench.errors import UserError
from hfbench.results import BAD_ROWS_FILE

MEDIA = ("image", "audio")  # columns of splits that hold files or encoded bytes
SHOWN_LABELS = 10


@dataclass(frozen=True)
class Splits:
    """Data in one shape, whatever they came from.

    Attributes:
        train, validation, test: columns ``text`` (and ``text_pair``), or ``image``, or ``audio``
            (still encoded: a path, bytes, or a dict with ``bytes`` and ``path``), and ``labels``
            (as :mod:`hfbench.data.labels` says for the ``problem_type``; of one label int64, its
            position in ``label_names``). Of speech ``audio`` and ``text``, the transcript.
        label_names: of the model's outputs; of a regression its column.
        summary: source, split sizes, columns, labels, notes on what was decided, inputs that are
            in two splits, rows that were skipped, fingerprint.
        origins: of each split.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: tuple[str, ...]
    summary: dict[str, Any]
    problem_type: ProblemType = "single_label_classification"
    origins: Mapping[str, Origin] = field(default_factory=dict)


def load_splits(data: DataConfig, modality: Modality, bad_rows: BadRows | None = None) -> Splits:
    """Load, label and split ``data.source``.

    A missing validation or test split is taken from train, stratified, the same for all runs.
    ``max_train_samples`` and ``max_eval_samples`` then keep a random subset, also the same. No
    label goes where it can stay; the notes name those that a split lacks.

    Rows without an input or with a wrong label are left out. They go to ``bad_rows``, which the
    caller checks after adding what cannot be decoded, and then completes the summary; without it
    both is done here.

    Raises UserError for unknown splits and columns, labels of another kind, an empty split, a
    single label, and too many bad rows.
    """
    source = load_source(data)
    raw = source.splits
    chosen = choose_splits(data, list(raw))
    tables = source.tables
    columns = detect_columns(raw[chosen["train"]], data, modality, tables[chosen["train"]].unread)
    labels = find_labels(
        raw[chosen["train"]], columns.label, data, place=tables[chosen["train"]].described
    )
    bad = BadRows(limit=data.max_bad_rows) if bad_rows is None else bad_rows
    bad.know_places(tables)
    notes = [*source.notes_on(chosen), *unused_splits(data, raw, chosen)]
    splits = {}
    for role, split in chosen.items():
        if len(raw[split]) == 0:
            raise UserError(f"split {split!r} of {data.source!r} is empty")
        own = _columns_of(tables[split], columns, data, modality, split, notes)
        splits[role] = _in_one_shape(tables[split], own, labels, data, modality, split, bad)
    labels.check_train(_labels(splits["train"]), data.source)
    if labels.problem_type == "single_label_classification":
        _check_known(splits, labels, columns.label, chosen, bad)
    if bad_rows is None:
        bad.check()
    whole = rows_of_labels(labels, splits["train"])
    carve(
        splits,
        data,
        notes,
        take=lambda train, shares: labels.divide(_labels(train), shares),
        chosen_by=labels.strata,
    )
    splits, origins = limited(splits, data, chosen, partial(with_every_label_first, labels))
    notes += labels.notes
    notes += describe_missing(labels, whole, splits)
    summary = {
        "source": data.source if data.name is None else f"{data.source} ({data.name})",
        "columns": {
            modality: columns.input,
            "label": ", ".join(data.label_columns or [columns.label]),
        }
        | ({} if columns.text_pair is None else {"text_pair": columns.text_pair}),
        "problem_type": labels.problem_type,
        "label_kind": labels.reason,
        "labels": list(labels.names),
        "notes": notes,
        "bad_rows": bad.counts(),
        "fingerprint": fingerprint(splits),
    }
    if bad_rows is None:
        complete_summary(summary, splits, origins)
    return Splits(
        splits["train"],
        splits["validation"],
        splits["test"],
        labels.names,
        summary,
        labels.problem_type,
        origins,
    )


def complete_summary(
    summary: dict[str, Any], splits: Mapping[str, Dataset], origins: Mapping[str, Origin]
) -> None:
    """Add what follows from the samples that can be read: sizes, numbers, duplicates."""
    summary.update({role: len(splits[role]) for role in ("train", "validation", "test")})
    if summary.get("problem_type") == "regression":
        summary["targets"] = _distribution(_labels(splits["train"]))
    found = find_duplicates(splits, {role: origin.name for role, origin in origins.items()})
    summary["duplicates"] = found
    summary["notes"].extend(describe_duplicates(found))


def describe(summary: Mapping[str, Any]) -> str:
    """The summary as a few lines for people."""
    columns = ", ".join(f"{kind} = {name}" for kind, name in summary["columns"].items())
    columns += f"; {_describe_labels(summary)}" if summary["labels"] else ""
    lines = [
        f"data: {summary['source']}; {summary['train']:,} train, {summary['validation']:,} "
        f"validation, {summary['test']:,} test",
        f"columns: {columns}",
    ]
    if summary.get("label_kind"):
        lines.append(f"labels: {summary['label_kind']}")
    skipped = sum(summary["bad_rows"].values())
    if skipped:
        lines.append(f"skipped: {skipped:,} rows that cannot be used, listed in {BAD_ROWS_FILE}")
    notes = (n if n.startswith("warning:") else f"note: {n}" for n in summary["notes"])
    return "\n".join([*lines, *notes])


def _describe_labels(summary: Mapping[str, Any]) -> str:
    labels = list(summary["labels"])
    if summary["problem_type"] == "regression":
        values = summary["targets"]
        return (
            f"regression, numbers of train from {values['min']:g} to {values['max']:g}, mean "
            f"{values['mean']:g}, standard deviation {values['std']:g}"
        )
    shown = ", ".join(labels[:SHOWN_LABELS]) + (", ..." if len(labels) > SHOWN_LABELS else "")
    several = " of which several may apply" if summary["problem_type"].startswith("multi") else ""
    return f"{len(labels)} labels{several}: {shown}"


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
                    content = media_content(value) if name in MEDIA else str(value).encode()
                    digest.update(f"{role} {name} ".encode() + content + b"\n")
    return digest.hexdigest()[:16]


def _columns_of(
    table: Table,
    columns: Columns,
    data: DataConfig,
    modality: Modality,
    split: str,
    notes: list[str],
) -> Columns:
    """The columns of this split: those of train, or detected anew where the names differ."""
    dataset = table.rows
    needed = {columns.input, columns.label, *data.label_columns}
    if columns.text_pair is not None:
        needed.add(columns.text_pair)
    if needed <= set(dataset.column_names):
        return columns
    try:
        own = detect_columns(
            dataset, DataConfig(label_columns=data.label_columns), modality, table.unread
        )
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
    table: Table,
    columns: Columns,
    labels: Labels,
    data: DataConfig,
    modality: Modality,
    split: str,
    bad: BadRows,
) -> Dataset:
    dataset = table.rows
    encoded, problems = labels.encode(dataset, columns.label)
    if len(problems) == len(dataset):
        raise UserError(
            f"split {split!r} has no row with a label that can be used ({table.described(0)}: "
            f"{problems[0]}): the labels of public test sets are often withheld; choose another "
            "split, e.g. data.test_split=validation"
        )
    inputs = [name for name in (columns.input, columns.text_pair) if name is not None]
    for name in inputs:
        find = texts_that_are_none if modality == "text" else without_media
        problems = find(dataset, name) | problems
    if len(problems) == len(dataset):
        raise UserError(
            f"split {split!r} has no row that can be used ({table.described(0)}: {problems[0]})"
        )
    renamed = {columns.input: str(modality)}
    if columns.text_pair is not None:
        renamed[columns.text_pair] = "text_pair"
    shaped = dataset.select_columns(list(renamed))
    shaped = shaped.rename_columns({old: new for old, new in renamed.items() if old != new})
    if modality != "text":
        shaped = undecoded(shaped, modality, Path(data.source).expanduser())
    for row in sorted(problems):
        path = None if modality == "text" else media_path(shaped[row][modality])
        bad.add(split, row, problems[row], file=path)
    kind: Any = Value(str(encoded.dtype))
    if encoded.ndim == 2:
        kind = List(kind, length=encoded.shape[1])
    column = encoded if encoded.ndim == 1 else list(encoded)
    shaped = shaped.add_column("labels", column, feature=kind)
    shaped = shaped.add_column(ROW, np.arange(len(dataset)))
    if not problems:
        return shaped
    return shaped.select(np.setdiff1d(np.arange(len(dataset)), list(problems)))


def texts_that_are_none(dataset: Dataset, column: str) -> Problems:
    return {
        row: f"no text ({column}={text!r})"
        for row, text in enumerate(dataset[column][:])
        if not isinstance(text, str) or not text.strip()
    }


def without_media(dataset: Dataset, column: str) -> Problems:
    table: Any = dataset.select_columns([column]).with_format("arrow")[:]
    present = table[column].is_valid().to_pylist()
    return {
        row: f"no file and no bytes (column {column!r} is empty)"
        for row, there in enumerate(present)
        if not there
    }


def undecoded(dataset: Dataset, modality: Modality, source: Path) -> Dataset:
    """The column of media as it is stored; paths are absolute."""
    name = str(modality)
    if isinstance(dataset.features[name], (Image, Audio)):
        kind = Image(decode=False) if modality == "image" else Audio(decode=False)
        return dataset.cast_column(name, kind)
    if is_string(dataset.features[name]):
        return _absolute_paths(dataset, name, source)
    return dataset


def _labels(dataset: Dataset) -> Encoded:
    return np.asarray(dataset["labels"][:])


def _distribution(labels: Encoded) -> dict[str, float]:
    numbers = labels.astype(np.float64)
    values = {
        "min": numbers.min(),
        "max": numbers.max(),
        "mean": numbers.mean(),
        "std": numbers.std(),
    }
    return {name: float(value) for name, value in values.items()}


def _absolute_paths(dataset: Dataset, column: str, source: Path) -> Dataset:
    """Paths in a table are relative to the table's folder."""
    folder = source if source.is_dir() else source.parent
    paths = [path and str((folder / path).absolute()) for path in dataset[column][:]]
    columns = {name: dataset[name][:] for name in dataset.column_names} | {column: paths}
    return Dataset.from_dict(columns, features=Features({n: Value("string") for n in columns}))


def _check_known(
    splits: dict[str, Dataset],
    labels: Labels,
    column: str,
    chosen: Mapping[str, str],
    bad: BadRows,
) -> None:
    """Leave out the samples with a label that the data name and no sample of train has."""
    known = np.unique(_labels(splits["train"]))
    for role in [role for role in splits if role != "train"]:
        found = _labels(splits[role])
        strange = ~np.isin(found, known)
        rows = splits[role][ROW]
        for index in np.flatnonzero(strange):
            label = labels.described(found[index])
            reason = f"the label {label!r} (column {column!r}), which train lacks"
            bad.add(chosen[role], rows[int(index)], reason)
        if strange.all():
            raise UserError(
                f"train has no label of split {chosen[role]!r}: {', '.join(labels.names)}"
            )
        if strange.any():
            splits[role] = splits[role].select(np.flatnonzero(~strange))
