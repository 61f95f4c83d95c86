"""Recommended checkpoints for the terminal, as Markdown and as JSON. No large library."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from hfbench.models.pretraining import Pretraining
from hfbench.recommend import Candidate, Recommendation, left_over
from hfbench.report.markup import Markdown
from hfbench.report.tables import (
    MIB,
    Style,
    heading_line,
    layout_table,
    paragraph,
    three_digits,
    wrap_label,
)

NAME_COLUMNS = 34

RULE = (
    "(1) what is made for the task: for text classification networks that read both ways, then "
    "language models; (2) one language before many, which share the parameters (Conneau et al. "
    "2020, arXiv:1911.02116); (3) published amounts of data before unpublished ones; (4) "
    "parameters in blocks × data, more first: the computation of a pass over the data is "
    "proportional to it, and the loss falls with either (Kaplan et al. 2020, arXiv:2001.08361); "
    "(5) a loss of every token or time step before one of masked ones only (Clark et al. 2020, "
    "arXiv:2003.10555); (6) not fine-tuned before fine-tuned; (7) fewer parameters."
)
UNKNOWN = (
    "Size and kind of pre-training are known, quality on your data is not, and the order knows "
    "your language, domain and resolution only by --pretrained-on. So compare several of these, "
    "each with several strategies:"
)


def format_recommendation(
    found: Recommendation, style: Style | Literal["json"], *, limit: int
) -> str:
    """The first ``limit`` checkpoints, why they stand there, and the rule of the order."""
    if style == "json":
        return _as_json(found, limit)
    shown = found.candidates[:limit]
    items = [_item(one, why, style) for one, why in zip(shown, reasons(found), strict=False)]
    sentence = left_over(found.left)
    parts = [
        heading_line(f"Checkpoints for {found.task}", style),
        paragraph(f"{sentence[0].upper()}{sentence[1:]}.", style),
        layout_table(*_table(shown, style), style),
        "\n".join(items),
        *(paragraph(text, style) for text in _remarks(found, limit)),
        paragraph(f"Order: {RULE}", style),
        paragraph(UNKNOWN, style),
        _commands(found, style),
    ]
    return "\n\n".join(parts) + "\n"


def reasons(found: Recommendation) -> list[str]:
    """For the first what it is, for every other what put it behind the one before."""
    texts = [f"first of all that match, with {_product(found.candidates[0])}"]
    pairs = itertools.pairwise(found.candidates)
    for (before, one), key in zip(pairs, found.decided_by, strict=True):
        texts.append(_why_behind(one, before, key))
    return texts


def _why_behind(one: Candidate, before: Candidate, key: str) -> str:
    if key == "task":
        return f"made for another task, {one.pretraining.tasks[0]}: reads left to right only"
    if key == "languages":
        return "many languages share its parameters"
    if key == "published":
        return "the amount of its data is not published"
    if key == "scale":
        smaller = one.size.block_parameters / before.size.block_parameters
        if one.scale is not None and before.scale is not None:
            smaller = one.scale / before.scale
        return f"{_product(one)}, {smaller:.2g} times that of {before.name}"
    as_large = f"as large as {before.name} in blocks × data"
    return {
        "positions": f"{as_large}, but its loss was of masked positions only",
        "fine-tuned": f"{as_large}, but fine-tuned already",
        "parameters": f"{as_large}, with more parameters in all",
        "name": f"no different from {before.name} in this order but for its name",
    }[key]


def _product(one: Candidate) -> str:
    """``302M in blocks × 160 GB of text``."""
    amount = _quantity(one.pretraining)
    factor = "" if amount is None else f" × {amount}"
    return f"{three_digits(one.size.block_parameters / 1e6)}M in blocks{factor}"


def _quantity(facts: Pretraining) -> str | None:
    """``160 GB of text``; None for an unpublished amount."""
    return None if facts.amount is None else f"{facts.amount:,g} {facts.unit}"


def _table(shown: Sequence[Candidate], style: Style) -> tuple[list[str], list[list[str]]]:
    with_peak = shown[0].peak_bytes is not None
    headings = ["checkpoint", "parameters", "weights\nMiB", "blocks ×\nhidden"]
    headings += ["training\nMiB"] if with_peak else []
    headings += ["pre-trained\non", "licence"]
    rows = []
    for one in shown:
        size, facts = one.size, one.pretraining
        name = one.name
        if style == "table":
            name = wrap_label(name, columns=NAME_COLUMNS, breaks="/-")
        row = [
            name,
            f"{size.parameters:,}",
            three_digits(size.weight_bytes / MIB),
            f"{size.blocks} × {size.hidden_size}",
        ]
        row += [three_digits(one.peak_bytes / MIB)] if one.peak_bytes is not None else []
        rows.append([*row, _amount(facts), facts.licence or "-"])
    return headings, rows


def _amount(facts: Pretraining) -> str:
    """``160 GB``, ``14 million``, ``960 hours``; the unit's noun is in the item."""
    return "-" if facts.amount is None else f"{facts.amount:,g} {facts.unit.split()[0]}"


def _item(one: Candidate, why: str, style: Style) -> str:
    facts = one.pretraining
    amount = _quantity(facts) or "amount unpublished"
    languages = "multilingual" if facts.multilingual else ", ".join(facts.languages)
    pieces = [
        f"{', '.join(facts.corpora)} ({amount}{'; ' if languages else ''}{languages})",
        facts.objective,
        *([f"then fine-tuned: {facts.further}"] if facts.further else []),
        *(["one block's weights serve all blocks"] if _shares_blocks(one) else []),
        facts.source,
    ]
    lines = (f"- {one.name}: {'; '.join(pieces)}.", f"  Why here: {why}.")
    # All of it is the catalogue's, with its links.
    return "\n".join(paragraph(Markdown(line), style, indent="  ") for line in lines)


def _shares_blocks(one: Candidate) -> bool:
    return one.size.own_blocks < one.size.blocks


def _remarks(found: Recommendation, limit: int) -> Iterator[str]:
    count = len(found.candidates)
    if count > limit:
        yield f"Of {count} that match the first {limit} are shown; --limit {count} shows all."
    for name, reason in found.unsuited.items():
        yield f"Left out, because its training cannot be planned: {name}: {reason}"


def _commands(found: Recommendation, style: Style) -> str:
    """What to run next, with the first checkpoint."""
    first = found.candidates[0]
    # A language model's output layer mostly is the embeddings' matrix: no head to train alone.
    head = "" if found.task == "causal_lm" else "head,"
    strategies = f"scratch,{head}last_{min(2, first.size.own_blocks)},lora,full"
    labels = "" if found.num_labels is None else f" --num-labels {found.num_labels}"
    lines = [
        f"hfbench plan {first.name} \\",
        f"    --task {found.task}{labels}",
        f"hfbench compare --config FILE --strategies {strategies} \\",
        f"    --seeds 0,1,2 model.checkpoint={first.name}",
    ]
    indent = "    " if style == "markdown" else "  "
    return "\n".join(indent + line for line in lines)


def _as_json(found: Recommendation, limit: int) -> str:
    shown = zip(found.candidates[:limit], reasons(found), strict=False)
    values = {
        "task": found.task,
        "num_labels": found.num_labels,
        "left_over": [asdict(left) for left in found.left],
        "unsuited": dict(found.unsuited),
        "order": RULE,
        "checkpoints": [_candidate_values(one, why) for one, why in shown],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _candidate_values(one: Candidate, why: str) -> dict[str, Any]:
    return {
        "checkpoint": one.name,
        "parameters": one.size.parameters,
        "weight_bytes": one.size.weight_bytes,
        "blocks": one.size.blocks,
        "blocks_with_own_weights": one.size.own_blocks,
        "block_parameters": one.size.block_parameters,
        "hidden_size": one.size.hidden_size,
        "training_peak_bytes": one.peak_bytes,
        "why_here": why,
        "pretraining": asdict(one.pretraining),
    }
