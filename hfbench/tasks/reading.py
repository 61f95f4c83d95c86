"""Splits of any task as samples, without the rows that cannot be read."""

from collections.abc import Callable

import numpy as np
from datasets import Dataset

from hfbench.config import RunConfig
from hfbench.data.bad_rows import BadRows
from hfbench.data.carving import Origin
from hfbench.data.columns import Modality
from hfbench.data.cropping import Facts
from hfbench.data.media import Unreadable, added, media_path
from hfbench.data.splits import Splits, complete_summary
from hfbench.errors import UserError
from hfbench.record import run_folder
from hfbench.results import BAD_ROWS_FILE
from hfbench.tasks.base import Samples, TaskData

# rows of a split, its role, and where rows that cannot be read go -> samples of the others
Read = Callable[[Dataset, str, Unreadable], Samples]


def bad_rows_of(config: RunConfig) -> BadRows:
    """An empty list with the run's limit, and its file for what goes beyond."""
    return BadRows(limit=config.data.max_bad_rows, file=run_folder(config) / BAD_ROWS_FILE)


def facts_of(data: TaskData) -> Facts:
    """What decoding did with the samples of all splits; empty where nothing is decoded."""
    return added(getattr(split, "facts", {}) for split in (data.train, data.validation, data.test))


def read_splits(splits: Splits, modality: Modality, read: Read, bad: BadRows) -> TaskData:
    """Every split, by ``read``; what it cannot read goes to ``bad``, with what is there already.

    Raises UserError for more of them than ``data.max_bad_rows``, after listing them.
    """
    samples: dict[str, Samples] = {}
    rows = {role: getattr(splits, role) for role in splits.origins}
    origins = dict(splits.origins)
    for role, origin in splits.origins.items():
        unreadable: Unreadable = {}
        samples[role] = read(rows[role], role, unreadable)
        for index, reason in unreadable.items():
            path = None if modality == "text" else media_path(rows[role][index][modality])
            bad.add(origin.split, origin.rows[index], reason, file=path)
        if unreadable:
            good = np.setdiff1d(np.arange(len(rows[role])), list(unreadable))
            rows[role] = rows[role].select(good)
            origins[role] = Origin(origin.split, [origin.rows[index] for index in good])
    bad.check()
    for role, found in samples.items():
        if len(found) == 0:
            raise UserError(f"no sample of {role} can be read: {bad.found[-1]}")
    summary = splits.summary | {"bad_rows": bad.counts()}
    complete_summary(summary, rows, origins)
    return TaskData(
        train=samples["train"],
        validation=samples["validation"],
        test=samples["test"],
        label_names=splits.label_names,
        summary=summary,
        bad_rows=bad.found,
    )
