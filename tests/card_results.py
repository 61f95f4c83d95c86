"""Results as real runs leave them, whole enough for a model card."""

import dataclasses
from typing import Any

from result_factory import make_result

from hfbench.config import load_config
from hfbench.results import RunResult

LABELS = ["negative", "positive"]
CONFUSION = [[120, 30], [45, 105]]  # 225 of 300 right


def card_result(*overrides: str, task: str = "text_classification", **changes: Any) -> RunResult:
    """A run on 300 test samples with the settings that ``overrides`` give."""
    config = load_config(None, overrides, task=task)
    modality = task.split("_")[0]
    values: dict[str, Any] = {
        "config": config.to_dict(),
        "task": task,
        "checkpoint": config.model.label,
        "dataset": config.data.label,
        "seed": config.seed,
        "accuracy": 0.75,
        "versions": {"python": "3.11.7", "hfbench": "0.1.0", "transformers": "5.23.0"},
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "gpus": [], "threads": 1},
        "data": {
            "source": config.data.source,
            "train": 1200,
            "validation": 150,
            "test": 300,
            "columns": {modality: "sentence", "label": "label"},
            "labels": LABELS,
            "notes": [],
            "fingerprint": "94036161576d52dc",
        },
        "test_metrics": {
            "loss": 0.1 + 0.2,  # 0.30000000000000004
            "accuracy": 0.75,
            "f1_macro": 0.7488372093023256,
            "f1": 1e-05,
            "precision": 1.0,
            "confusion_matrix": CONFUSION,
        },
    }
    strategy = config.strategy.label
    return make_result(strategy, **(values | changes))


def with_config(result: RunResult, section: str, **values: Any) -> RunResult:
    """The result of a run that had other settings in one section."""
    config = result.config | {section: result.config[section] | values}
    return dataclasses.replace(result, config=config)
