"""What a model card must warn of, as far as it follows from the facts of the result."""

import math
from collections.abc import Sequence

from hfbench.report.card_metadata import (
    Source,
    data_name,
    is_from_train,
    is_pretrained,
    problem_type,
)
from hfbench.report.markup import code_span, escaped
from hfbench.report.tables import percent_text
from hfbench.results import RunResult


def limitations_section(result: RunResult, *, checkpoint: Source, data: Source) -> str:
    """A list; each point is there because of a number or a setting of the result."""
    points = [
        f"One run with one seed ({result.seed}): how much another seed would change is not known "
        "from it.",
        *_test_size(result, data),
        *_validation(result),
        *_early_end(result),
        *_input_limits(result),
        *_labels(result),
        *_frozen(result, checkpoint),
        "Energy was not measured. To estimate it from the training time one must assume what the "
        "machine draws; nothing is assumed here.",
        _licence(result, checkpoint),
    ]
    return "\n".join(["## Limitations", "", *(f"- {point}" for point in points)])


def _test_size(result: RunResult, data: Source) -> list[str]:
    count, accuracy = result.data["test"], result.test_metrics.get("accuracy")
    text = f"Tested on {count:,} samples of {escaped(data_name(result, data))}"
    if is_from_train(result, "test"):
        text += ", taken from train before training"
    if result.config["data"]["max_eval_samples"] == count:
        text += ", as many as `data.max_eval_samples` allowed"
    if accuracy is not None and 0 < accuracy < 1:
        error = math.sqrt(accuracy * (1 - accuracy) / count)  # of a binomial proportion
        text += (
            f": for the choice of samples alone the accuracy has a standard error of {error:.4f}"
        )
    return [f"{text}."]


def _labels(result: RunResult) -> list[str]:
    if not result.data["labels"]:
        return []
    names = [code_span(name) for name in result.data["labels"]]
    if problem_type(result) == "regression":
        values = result.data["targets"]
        return [
            f"It learnt numbers from {values['min']:.6g} to {values['max']:.6g}; nothing is known "
            "of it where the answer lies beyond, and its answer may lie beyond too."
        ]
    if problem_type(result) == "multi_label_classification":
        return [
            f"It knows {len(names)} labels. The probability from which one applies, 0.5, was not "
            "tuned.",
            *_untested_labels(names, result.test_metrics["multilabel_confusion_matrix"]),
        ]
    points = [
        f"It knows {len(names)} labels and gives one of them to any input, also to one that fits "
        "none."
    ]
    matrix = result.test_metrics.get("confusion_matrix")
    if matrix is None:
        return points
    absent = [name for name, row in zip(names, matrix, strict=True) if not any(row)]
    silent = [name for name, *column in zip(names, *matrix, strict=True) if not any(column)]
    return points + _untested(absent, silent)


def _untested_labels(
    names: Sequence[str], of_labels: Sequence[Sequence[Sequence[int]]]
) -> list[str]:
    """From [[true negatives, false positives], [false negatives, true positives]] of each."""
    pairs = list(zip(names, of_labels, strict=True))
    absent = [name for name, (_, true) in pairs if not any(true)]
    silent = [name for name, (false, true) in pairs if not false[1] + true[1]]
    return _untested(absent, silent)


def _untested(absent: Sequence[str], silent: Sequence[str]) -> list[str]:
    points = []
    if absent:
        points.append(f"Not tested, because the test split lacks them: {', '.join(absent)}.")
    if silent:
        points.append(f"Never its answer on the test split: {', '.join(silent)}.")
    return points


def _validation(result: RunResult) -> list[str]:
    if not is_from_train(result, "validation"):
        return []
    return [
        f"The validation data ({result.data['validation']:,} samples), by which the epoch was "
        "chosen, were taken from train."
    ]


def _early_end(result: RunResult) -> list[str]:
    settings, done = result.config["training"], result.history[-1].epoch
    if done >= settings["epochs"]:
        return []
    by_steps = settings["max_steps"] == result.steps
    why = "max_steps" if by_steps else "early_stopping_patience"
    return [
        f"Training ended after {done:.4g} of {settings['epochs']} epochs, as `training.{why}` "
        "asked."
    ]


def _input_limits(result: RunResult) -> list[str]:
    data = result.config["data"]
    if result.task == "causal_lm":
        return [
            f"It was trained on at most {data['max_length']} tokens at a time: what it makes of "
            "longer texts was not measured.",
            "What it writes may be false or harmful, and sound right all the same.",
        ]
    if "text" in result.data["columns"]:
        return [f"Texts were cut to at most {data['max_length']} tokens{_how_many(result)}."]
    if "audio" in result.data["columns"]:
        if "transcript" in result.data["columns"]:
            return [f"No recording was longer than {result.max_seconds:g} s."]
        return [
            f"Of recordings longer than {result.max_seconds:g} s only the middle is used"
            f"{_how_many(result)}."
        ]
    return []


def _how_many(result: RunResult) -> str:
    """Of the inputs were cropped; nothing where the result does not say it."""
    cropped = result.data.get("cropped")
    if cropped is None:
        return ""
    kind = "texts" if "texts" in cropped else "clips"
    return f" ({cropped[kind]:,} of {cropped[f'of_{kind}']:,} were longer)"


def _frozen(result: RunResult, checkpoint: Source) -> list[str]:
    assert result.parameters is not None
    if result.parameters.frozen == 0:
        return []
    share = percent_text(100 - result.parameters.trainable_percent)
    return [
        f"{result.parameters.frozen:,} parameters ({share} %) stayed frozen: what the data of "
        f"{code_span(checkpoint.name)} left in them is still there."
    ]


def _licence(result: RunResult, checkpoint: Source) -> str:
    """Whoever publishes chooses one; only that of a well-known base checkpoint is known here."""
    text = "No licence is stated, because the result records none."
    if not is_pretrained(result):
        return f"{text} That of the data applies."
    known = checkpoint.pretraining
    base = "" if known is None or known.licence is None else f" ({known.licence})"
    return f"{text} Those of the base checkpoint{base} and of the data apply."
