"""Settings, tasks and changed data of speech recognition."""

import json
from pathlib import Path

from hfbench.config import RunConfig, load_config
from hfbench.tasks import make_task
from hfbench.tasks.speech_recognition import SpeechRecognition


def config_of(checkpoint: Path, source: Path, *more: str) -> RunConfig:
    settings = [
        f"model.checkpoint={checkpoint}",
        f"data.source={source}",
        "data.max_seconds=0.4",
        "training.batch_size=8",
        "training.eval_batch_size=3",
        "training.max_steps=2",
        *more,
    ]
    return load_config(None, settings, task="speech_recognition")


def task_of(config: RunConfig) -> SpeechRecognition:
    task = make_task(config)
    assert isinstance(task, SpeechRecognition)
    return task


def changed_row(speech: Path, folder: Path, split: str, row: int, **values: str) -> Path:
    """The data with another row, whose recordings stay where they are."""
    for table in speech.glob("*.jsonl"):
        rows = [json.loads(line) for line in table.read_text().splitlines()]
        rows = [{**one, "audio": str(speech / one["audio"])} for one in rows]
        if table.stem == split:
            rows[row].update(values)
        (folder / table.name).write_text("\n".join(map(json.dumps, rows)))
    return folder
