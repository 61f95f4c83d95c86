"""Mistakes that a configuration and small files tell, found before any large library is loaded.

What only the libraries know is left to them: nothing is refused here that a run would accept.
"""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfbench.config import DataConfig, RunConfig, StrategyConfig
from hfbench.conversion import did_you_mean
from hfbench.errors import UserError
from hfbench.plain_json import read_json

TASK_NAMES = (
    "text_classification",
    "image_classification",
    "audio_classification",
    "speech_recognition",
    "causal_lm",
    "mnist_mlp",
)
# Networks of one stack of equal blocks, and what their configurations call its depth.
DEPTH_KEYS = {
    **dict.fromkeys(
        (
            *("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta", "deberta-v2"),
            *(
                "mpnet",
                "modernbert",
                "vit",
                "deit",
                "beit",
                "dinov2",
                "wav2vec2",
                "hubert",
                "wavlm",
            ),
            *("llama", "mistral", "qwen2", "gemma", "gpt_neox", "opt"),
        ),
        "num_hidden_layers",
    ),
    "distilbert": "n_layers",
    "gpt2": "n_layer",
}
FIRST_ROWS = 65_536  # characters of a table in which its first line is looked for
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def check_early(config: RunConfig, strategies: Sequence[StrategyConfig]) -> None:
    """Raise UserError for an unknown task, checkpoint, block or column, as far as files tell."""
    if config.task not in TASK_NAMES:
        hint = did_you_mean(config.task, TASK_NAMES)
        raise UserError(f"task={config.task!r} is unknown{hint}; choose: {', '.join(TASK_NAMES)}")
    if config.network is None:
        _check_depth(config.model.checkpoint, strategies)
    _check_columns(config.data)


def _check_depth(checkpoint: str, strategies: Sequence[StrategyConfig]) -> None:
    from hfbench.models.bundled import resolve_checkpoint
    from hfbench.models.catalogue import catalogue_entry

    file = Path(resolve_checkpoint(checkpoint)) / "config.json"
    entry = catalogue_entry(checkpoint)
    values = _read_json(file) if file.is_file() else entry[1] if entry else {}
    depth = values.get(DEPTH_KEYS.get(str(values.get("model_type")), ""))
    if not isinstance(depth, int):
        return
    for strategy in strategies:
        asked = max(strategy.n or 0, strategy.last_n or 0, *(i + 1 for i in (*strategy.blocks, -1)))
        if asked > depth:
            raise UserError(
                f"strategy {strategy.label!r} needs {asked} blocks, but {checkpoint!r} has "
                f"{depth} blocks, numbered 0 to {depth - 1}"
            )


def _read_json(file: Path) -> dict[str, Any]:
    """Empty where it cannot be read: loading it then says why."""
    try:
        values = read_json(file)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _check_columns(data: DataConfig) -> None:
    file = _table_of_train(data.source)
    columns = None if file is None else _columns_of(file)
    if columns is None:
        return
    keys = ("text", "text_pair", "completion", "image", "audio", "label")
    named = [(f"data.{key}_column", getattr(data, f"{key}_column")) for key in keys]
    for key, name in [*named, *(("data.label_columns", name) for name in data.label_columns)]:
        if name is not None and name not in columns:
            raise UserError(
                f"{key}={name!r} is not a column of {str(file)!r}{did_you_mean(name, columns)}; "
                f"its first line names: {', '.join(columns)}"
            )


def _table_of_train(source: str) -> Path | None:
    """The table itself, or the one that is called train in its folder."""
    path = Path(source).expanduser()
    if not source or not path.exists():
        return None
    files = [path] if path.is_file() else [path / f"train{ending}" for ending in DELIMITERS]
    found = [file for file in files if file.is_file() and file.suffix.lower() in DELIMITERS]
    return found[0] if len(found) == 1 else None


def _columns_of(file: Path) -> list[str] | None:
    """What the first line of a table names; None where it is no plain UTF-8."""
    delimiter = DELIMITERS[file.suffix.lower()]
    quoting: Any = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            begin = itertools.takewhile(bool, iter(lambda: lines.readline(FIRST_ROWS), ""))
            rows = csv.reader(begin, delimiter=delimiter, quoting=quoting, strict=True)
            return next(filter(None, rows), None)
    except (OSError, ValueError, csv.Error):
        return None
