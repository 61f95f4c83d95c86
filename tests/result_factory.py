"""Results with plausible numbers for the tests of results, comparisons and reports."""

from typing import Any

from hfbench.results import EpochRecord, ParameterReport, ParameterRow, Prediction, RunResult


def make_parameters(trainable: int = 1_538, total: int = 109_483_778) -> ParameterReport:
    """BERT base with two labels; only the sums matter where comparisons are tested."""
    rows = (
        ParameterRow("backbone", total - trainable, 0),
        ParameterRow("head", trainable, trainable),
    )
    return ParameterReport(
        total=total, trainable=trainable, buffers=1_024, by_depth=rows, by_layer_type=rows
    )


def make_result(
    strategy: str = "head",
    seed: int = 0,
    accuracy: float | None = 0.75,
    trainable: int = 1_538,
    **changes: Any,
) -> RunResult:
    values: dict[str, Any] = {
        "run_id": f"{strategy}-{seed}",
        "status": "succeeded",
        "reason": None,
        "task": "text_classification",
        "checkpoint": "google-bert/bert-base-uncased",
        "checkpoint_commit": None,
        "dataset": "nyu-mll/glue sst2",
        "strategy": strategy,
        "seed": seed,
        "config": {"seed": seed, "training": {"learning_rate": 5e-5}},
        "versions": {"python": "3.12.1"},
        "git": {"commit": "0" * 40, "dirty": False},
        "hardware": {"cpu": "a processor", "cores": 2, "gpus": []},
        "parameters": make_parameters(trainable),
        "prefix": None,
        "predicted": Prediction(
            step_flops=10**9,
            step_seconds=0.4,
            peak_memory_bytes=2 * 2**30,
            matmul_flops_per_second=8e9,
        ),
        "history": (
            EpochRecord(epoch=1.0, step=10, train_loss=0.5, validation={"accuracy": 0.7}),
            EpochRecord(epoch=2.0, step=20, train_loss=0.25, validation={"accuracy": 0.8}),
        ),
        "primary_metric": "accuracy",
        "best_validation": 0.8,
        "test_metrics": {"accuracy": accuracy, "f1_macro": accuracy},
        "data": {"train": 320, "label_names": ["negative", "positive"]},
        "train_seconds": 10.0 + seed,
        "total_seconds": 12.0,
        "samples_per_second": 64.0,
        "steps": 20,
        "peak_memory_bytes": 3 * 2**30,
        "saved_bytes": 418 * 2**20,
        "num_processes": 1,
        "started_at": f"2026-01-01T00:00:{seed:02d}+00:00",
    }
    return RunResult(**(values | changes))
