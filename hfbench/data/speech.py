"""Train, validation and test recordings with their transcripts."""

from pathlib import Path

import numpy as np
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.bad_rows import BadRows
from hfbench.data.carving import ROW, by_chance, carve, choose_splits, limited, unused_splits
from hfbench.data.columns import detect_speech
from hfbench.data.media import media_path
from hfbench.data.sources import load_source
from hfbench.data.splits import (
    Splits,
    fingerprint,
    texts_that_are_none,
    undecoded,
    without_media,
)
from hfbench.errors import UserError


def load_speech(data: DataConfig, bad: BadRows) -> Splits:
    """Load and split ``data.source``: the columns ``audio`` and ``text``, as it is in the data.

    A missing test or validation split is taken from train by chance, the same for all runs. Rows
    without a recording or a transcript are left out and go to ``bad``, which the caller checks.

    Raises UserError for unknown splits and columns and for a split without a row that can be used.
    """
    source = load_source(data)
    raw = source.splits
    chosen = choose_splits(data, list(raw))
    audio, text = detect_speech(raw[chosen["train"]], data, source.tables[chosen["train"]].unread)
    bad.know_places(source.tables)
    notes = [*source.notes_on(chosen), *unused_splits(data, raw, chosen)]
    splits = {
        role: _shaped(raw[split], audio, text, data, split, bad) for role, split in chosen.items()
    }
    carve(splits, data, notes, take=by_chance, chosen_by="by chance")
    splits, origins = limited(splits, data, chosen)
    summary = {
        "source": data.source if data.name is None else f"{data.source} ({data.name})",
        "columns": {"audio": audio, "transcript": text},
        "labels": [],
        "notes": notes,
        "bad_rows": bad.counts(),
        "fingerprint": fingerprint(splits),
    }
    return Splits(
        splits["train"], splits["validation"], splits["test"], (), summary, origins=origins
    )


def _shaped(
    dataset: Dataset, audio: str, text: str, data: DataConfig, split: str, bad: BadRows
) -> Dataset:
    if missing := {audio, text} - set(dataset.column_names):
        raise UserError(
            f"split {split!r} lacks the column {min(missing)!r} of train; it has: "
            f"{', '.join(dataset.column_names)}"
        )
    problems = texts_that_are_none(dataset, text) | without_media(dataset, audio)
    if len(problems) == len(dataset):
        raise UserError(f"split {split!r} of {data.source!r} has no row that can be used")
    shaped = dataset.select_columns([audio, text]).rename_columns(
        {old: new for old, new in ((audio, "audio"), (text, "text")) if old != new}
    )
    shaped = undecoded(shaped, "audio", Path(data.source).expanduser())
    for row in sorted(problems):
        bad.add(split, row, problems[row], file=media_path(shaped[row]["audio"]))
    shaped = shaped.add_column(ROW, np.arange(len(dataset)))
    return shaped.select(np.setdiff1d(np.arange(len(dataset)), list(problems)))
