"""The card of a published model, made from its result alone: nothing is claimed that is not there.

It names no path of anybody's machine. A pure function: nothing is read and nothing printed.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from hfbench.config import NEUTRAL_KEYS, RunConfig, flatten
from hfbench.errors import UserError
from hfbench.report.card_limitations import limitations_section
from hfbench.report.card_metadata import (
    Contents,
    Source,
    card_metadata,
    checkpoint_source,
    data_name,
    data_source,
    has_head,
    is_pretrained,
    metric_title,
    problem_type,
    scalars,
)
from hfbench.report.card_usage import usage_section
from hfbench.report.markup import Markdown, code_span, escaped, escaped_line, fenced, folded
from hfbench.report.tables import MIB, format_parameters, layout_table, percent_text, three_digits
from hfbench.results import RESULT_FILE, RunResult

_FEW_LABELS = 20  # longer tables of labels are folded

_CONTENTS = {
    "model": "the whole model",
    "adapter": "the adapter and the trained head, without the base checkpoint",
    "merged": "the whole model, with the adapter merged into its weights",
}
_STRATEGIES = {
    "full": "everything trained",
    "head": "{head} trained on a frozen backbone",
    "last_n": "the head and the last {n} trained",
    "first_n": "the head and the first {n} trained",
    "blocks": "the head and the blocks {blocks} trained",
    "lora": "low-rank adapters (LoRA of rank {r}, alpha {lora_alpha}, on {targets}) and the head "
    "trained",
    "dora": "weight-decomposed low-rank adapters (DoRA of rank {r}, alpha {lora_alpha}, on "
    "{targets}) and the head trained",
    "qlora": "low-rank adapters (LoRA of rank {r}, alpha {lora_alpha}, on {targets}) and the head "
    "trained on a base whose linear layers are in 4 bits (QLoRA)",
    "ia3": "factors of keys, values and inner values of the feed-forwards ((IA)³) and the head "
    "trained",
    "bitfit": "every bias and the head trained",
    "norm": "every normalisation layer and the head trained",
    "attention": "the attention layers of the blocks and the head trained",
    "gradual": "the head trained first, from the last to the first one block more every {every}, "
    "then the embeddings (gradual unfreezing)",
    "scratch": "everything trained from random weights; only the architecture is the checkpoint's",
}
_PRECISIONS = {
    "no": "float32",
    "bf16": "bfloat16 autocast of float32 weights",
    "fp16": "float16 autocast of float32 weights",
}
_TARGETS = {
    "attention_qv": "query and value",
    "attention": "the attention's layers",
    "all_linear": "all linear layers",
}


def model_card(
    result: RunResult,
    *,
    repo_id: str,
    contents: Contents,
    local: Collection[str],
    revision: str | None = None,
    plots: Sequence[str] = (),
) -> str:
    """The text of ``README.md``: metadata for the Hub, then what people want to know.

    Args:
        repo_id: where it is published, ``owner/name``.
        contents: what is published: a whole model, an adapter, or an adapter merged into its base.
        local: the names among the configuration's checkpoint and data that are files or folders.
            The result does not tell ``reviews/german`` on a disk from the same name on the Hub.
        revision: the branch, when it is not the repository's default.
        plots: images in the repository, by their names there.

    Raises UserError for a run that did not succeed and for a task without a program to show.
    """
    if result.status != "succeeded":
        raise UserError(f"run {result.run_id} {result.status}, so there is no model to describe")
    checkpoint = checkpoint_source(result, local=local)
    data = data_source(result, local=local)
    metadata = card_metadata(
        result, repo_id=repo_id, contents=contents, checkpoint=checkpoint, data=data
    )
    sections = [
        _what_it_is(result, repo_id, contents, checkpoint, data),
        usage_section(
            result, repo_id=repo_id, contents=contents, revision=revision, checkpoint=checkpoint
        ),
        _data_section(result, data),
        _training_section(result, checkpoint),
        _results_section(result),
        *([_plots_section(plots)] if plots else []),
        _cost_section(result),
        _reproduce_section(result, checkpoint, data),
        limitations_section(result, checkpoint=checkpoint, data=data),
    ]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _what_it_is(
    result: RunResult, repo_id: str, contents: Contents, checkpoint: Source, data: Source
) -> str:
    task = result.task.replace("_", " ")
    lines = [
        f"# {escaped(repo_id.rpartition('/')[2])}",
        f"A model for {task}: {code_span(checkpoint.name)}, trained on "
        f"{escaped(data_name(result, data))} with the strategy {code_span(result.strategy)}: "
        f"{_what_trained(result)}. This repository holds {_contents(result, contents)}.",
    ]
    if result.primary_value is not None:
        lines.append(
            f"On {result.data['test']:,} test samples its {result.primary_metric} is "
            f"**{result.primary_value:.4f}**."
        )
    lines.append(
        f"Every measured number here is from [{RESULT_FILE}]({RESULT_FILE}), the record that "
        f"hfbench wrote of the run {escaped(result.run_id)}, started {escaped(result.started_at)}."
    )
    return "\n\n".join(lines)


def _contents(result: RunResult, contents: Contents) -> str:
    text = _CONTENTS[contents]
    return text if has_head(result) else text.replace(" and the trained head", "")


def _what_trained(result: RunResult) -> str:
    strategy = dict(result.config["strategy"])
    strategy["n"] = _blocks(strategy["n"])
    strategy["blocks"] = ", ".join(map(str, strategy["blocks"]))
    strategy["targets"] = _TARGETS[strategy["targets"]]
    if strategy["last_n"] is not None:
        strategy["targets"] += f" of the last {_blocks(strategy['last_n'])}"
    every = strategy.get("every", 1)  # older results know no gradual unfreezing
    strategy["every"] = "epoch" if every == 1 else f"{every} epochs"
    new = result.weights is None or result.weights.has_new_head  # older results: not known, usual
    strategy["head"] = "the new head" if new else "the checkpoint's own head"
    text = _STRATEGIES[strategy["name"]].format(**strategy)
    if not has_head(result):
        text = text.replace("the head and ", "").replace(" and the head", "")
        text = text.replace("the head trained", "what follows the blocks trained")
    if strategy["freeze"]:
        patterns = ", ".join(map(code_span, strategy["freeze"]))
        text += f", except the parameters that match {patterns}"
    return text


def _blocks(count: int | None) -> str:
    return "block" if count == 1 else f"{count} blocks"


def _data_section(result: RunResult, data: Source) -> str:
    facts, settings = result.data, result.config["data"]
    part = "" if settings["name"] is None else f", configuration {code_span(settings['name'])}"
    columns = ", ".join(f"{kind} = {code_span(name)}" for kind, name in facts["columns"].items())
    sizes = [[role, f"{facts[role]:,}"] for role in ("train", "validation", "test")]
    skipped = sum(facts.get("bad_rows", {}).values())
    limit = settings["max_train_samples"]
    lines = [
        "## Data",
        f"{data.pinned}{part}. Columns: {columns}.{_unpinned(data)}",
        _table(["split", "samples"], sizes),
        *([f"`data.max_train_samples={limit}` limited train."] if limit == facts["train"] else []),
        *(escaped_line(f"{note[0].upper()}{note[1:]}.") for note in facts["notes"]),
        *([f"Rows that could not be used and were left out: {skipped:,}."] if skipped else []),
        *([_outputs(result)] if facts["labels"] else []),
        f"Fingerprint of the contents of all splits: `{facts['fingerprint']}`",
    ]
    return "\n\n".join(lines)


def _outputs(result: RunResult) -> str:
    """The labels, or of a regression the numbers of train."""
    facts, problem = result.data, problem_type(result)
    if problem == "regression":
        values = {name: f"{value:.6g}" for name, value in facts["targets"].items()}
        return (
            f"One number, as it is in the data: from {values['min']} to {values['max']} in train, "
            f"with the mean {values['mean']} and the standard deviation {values['std']}."
        )
    several = ", of which several or none may apply" if problem.startswith("multi_label") else ""
    labels = f"{len(facts['labels'])} labels, in the order of the model's outputs{several}"
    names = ", ".join(map(code_span, facts["labels"]))
    return (
        folded(labels, Markdown(names))
        if len(facts["labels"]) > _FEW_LABELS
        else f"{labels}: {names}"
    )


def _training_section(result: RunResult, checkpoint: Source) -> str:
    assert result.parameters is not None  # the run succeeded
    report = format_parameters(
        result.parameters, "markdown", checkpoint=checkpoint.name, strategy=result.strategy
    )
    base = f"Base checkpoint: {checkpoint.pinned}.{_unpinned(checkpoint)}"
    known = checkpoint.pretraining
    if known is not None and is_pretrained(result):
        further = "" if known.further is None else f", then {known.further}"
        base += f" It had learnt from {', '.join(known.corpora)}{further} ({known.source})."
    lines = [
        "## Training",
        base,
        f"Trained: {result.parameters.trainable:,} of {result.parameters.total:,} parameters "
        f"({percent_text(result.parameters.trainable_percent)} %), in {result.steps:,} optimiser "
        f"steps, seed {result.seed}.",
        report.rstrip(),
    ]
    return "\n\n".join(lines)


def _results_section(result: RunResult) -> str:
    names = dict.fromkeys(("loss", result.primary_metric, "f1_macro", "cer"))
    shown = [name for name in names if name in result.history[-1].validation]
    headings = ["epoch", "step", "training loss"]
    epochs = [
        [f"{one.epoch:.4g}", f"{one.step:,}", *map(_number, [one.train_loss, *values])]
        for one in result.history
        for values in [[one.validation[name] for name in shown]]
    ]
    lines = [
        "## Results",
        _table([*headings, *(f"validation {metric_title(name)}" for name in shown)], epochs),
        f"The weights with the best validation {result.primary_metric} were kept and tested once.",
        _table(
            ["test metric", "value"],
            [[metric_title(name), _number(v)] for name, v in scalars(result.test_metrics)],
        ),
    ]
    metrics, labels = result.test_metrics, result.data["labels"]
    if "confusion_matrix" in metrics:
        matrix = metrics["confusion_matrix"]
        right = [row[index] for index, row in enumerate(matrix)]
        true, predicted = (
            [sum(row) for row in matrix],
            [sum(row) for row in zip(*matrix, strict=True)],
        )
        lines += [
            _by_label(labels, right, true, predicted),
            "Always answering the most frequent label of the test split would give an accuracy of "
            f"{max(true) / sum(true):.4f}.",
        ]
    if "multilabel_confusion_matrix" in metrics:
        of_labels = metrics["multilabel_confusion_matrix"]  # [[tn, fp], [fn, tp]] each
        right = [one[1][1] for one in of_labels]
        true = [sum(one[1]) for one in of_labels]
        predicted = [one[0][1] + one[1][1] for one in of_labels]
        lines.append(_by_label(labels, right, true, predicted))
    return "\n\n".join(lines)


def _by_label(
    labels: Sequence[str], right: Sequence[int], true: Sequence[int], predicted: Sequence[int]
) -> str:
    """Precision, recall and F1 of every label from counts; as in the means a ratio of nothing is 0.

    right: samples of the label that were found; true: all of them; predicted: where it was said.
    """
    rows = []
    for label, hits, actual, said in zip(labels, right, true, predicted, strict=True):
        ratios = [(hits, said), (hits, actual), (2 * hits, said + actual)]
        cells = [_number(part / whole if whole else 0) for part, whole in ratios]
        rows.append([code_span(label), f"{actual:,}", *cells])
    table = _table(["label", "test samples", "precision", "recall", "F1"], rows)
    return folded("Every label", Markdown(table)) if len(labels) > _FEW_LABELS else table


def _plots_section(plots: Sequence[str]) -> str:
    images = [f"![{name.rpartition('/')[2].rpartition('.')[0]}]({name})" for name in plots]
    return "\n\n".join(["## Plots", *images])


def _cost_section(result: RunResult) -> str:
    machine = [result.hardware["cpu"], f"{result.hardware['cores']} cores"]
    machine += result.hardware["gpus"] or ["no GPU"]
    machine += ["1 process" if result.num_processes == 1 else f"{result.num_processes} processes"]
    threads = result.hardware.get("threads")
    machine += [] if threads is None else ["1 thread" if threads == 1 else f"{threads} threads"]
    precision = result.hardware.get("precision")
    machine += [] if precision is None else [_PRECISIONS[precision]]
    step = flops = peak = None
    if result.predicted is not None:
        foretold = result.predicted
        step, flops, peak = foretold.step_seconds, foretold.step_flops, foretold.peak_memory_bytes
    rows = [
        ("seconds per optimiser step", step, result.step_seconds),
        (
            "peak memory of the main process, MiB",
            _per(MIB, peak),
            _per(MIB, result.peak_memory_bytes),
        ),
        ("GFLOP per optimiser step", _per(1e9, flops), None),
        ("GFLOP per second", None, _per(1e9, result.flops_per_second)),
        ("training without evaluation and saving, s", None, result.train_seconds),
        ("whole run, s", None, result.total_seconds),
        ("training samples per second", None, result.samples_per_second),
        ("saved model, MiB", None, _per(MIB, result.saved_bytes)),
    ]
    cells = [[name, *map(_quantity, numbers)] for name, *numbers in rows]
    table = _table(["", "predicted before training", "measured"], cells)
    return "\n\n".join(["## Cost", f"On {', '.join(map(escaped, machine))}.", table])


def _reproduce_section(result: RunResult, checkpoint: Source, data: Source) -> str:
    config = _changed_settings(result.settings)
    config["strategy"] = result.strategy
    config["model"]["checkpoint"] = checkpoint.name
    config["data"]["source"] = data.name
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=math.inf)
    versions = ", ".join(escaped(" ".join(pair)) for pair in result.versions.items())
    lines = [
        "## How to reproduce it",
        "Save this as `config.yaml`; every other setting that changes what is learnt has its "
        "default value.",
        fenced(text, "yaml"),
        *_replace_local(checkpoint, data),
        "Then, in a clone of hfbench:",
        fenced(_command(result)),
        f"Versions: {versions}.",
    ]
    if result.git is not None:
        changed = ", with changes that were not committed" if result.git["dirty"] else ""
        lines.append(
            f"The folder in which it was started was at git commit "
            f"{code_span(result.git['commit'])}{changed}."
        )
    return "\n\n".join(lines)


def _changed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults and changes what is learnt; task, sources and seed always."""
    defaults = dict(flatten(RunConfig().to_dict()))
    always = ("task", "model.checkpoint", "data.source", "seed")
    changed: dict[str, Any] = {}
    for key, value in flatten(config):
        section, _, name = key.rpartition(".")
        if key in always or (
            section != "strategy" and key not in NEUTRAL_KEYS and value != defaults.get(key)
        ):
            (changed.setdefault(section, {}) if section else changed)[name] = value
    return changed


def _replace_local(checkpoint: Source, data: Source) -> list[str]:
    named = (("model.checkpoint", checkpoint), ("data.source", data))
    keys = [f"`{key}`" for key, source in named if source.kind == "local"]
    if not keys:
        return []
    return [f"Put your path into {' and '.join(keys)}: these files are not on the Hub."]


def _command(result: RunResult) -> str:
    """The launch that starts as many processes on the same kind of device."""
    on_gpu = bool(result.hardware["gpus"]) and result.hardware.get("threads") is None
    several = result.num_processes > 1
    situation = (
        ("multi_gpu" if on_gpu else "multi_cpu") if several else "single_gpu" if on_gpu else "cpu"
    )
    return (
        f"{'ACCELERATE_USE_CPU=true ' if several and not on_gpu else ''}accelerate launch "
        f"--config_file accelerate_configs/{situation}.yaml "
        f"{f'--num_processes {result.num_processes} ' if several else ''}"
        f"recipes/{result.task}.py --config config.yaml"
    )


def _unpinned(source: Source) -> str:
    if source.kind != "hub" or source.revision is not None:
        return ""
    return " No revision was given: it was the default branch's of that day."


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return layout_table(headings, rows, "markdown")


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _quantity(value: float | None) -> str:
    return "-" if value is None else three_digits(value)


def _per(unit: float, value: float | None) -> float | None:
    return None if value is None else value / unit
