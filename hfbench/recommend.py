"""Which of the catalogue's checkpoints to start from: by task, size and pre-training, in order.

Light until something must be counted: a repeated question is answered from the disk.
"""

import difflib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hfbench.answers import cached
from hfbench.config import StrategyConfig
from hfbench.errors import UserError
from hfbench.models.catalogue import CATALOGUE
from hfbench.models.pretraining import PRETRAINING, Pretraining, TaskName
from hfbench.params import count_strategies


@dataclass(frozen=True)
class Size:
    """How large a network with the task's head is."""

    parameters: int
    block_parameters: int  # that a sample meets in the blocks; shared ones count each time
    blocks: int
    own_blocks: int  # with weights of their own: ALBERT has one for all
    hidden_size: int

    @property
    def weight_bytes(self) -> int:
        """In float32."""
        return 4 * self.parameters


@dataclass(frozen=True)
class Candidate:
    """A checkpoint of the catalogue for one task."""

    name: str
    pretraining: Pretraining
    size: Size
    peak_bytes: int | None = None  # of a training step; None when no memory is asked for

    @property
    def scale(self) -> float | None:
        """Parameters in blocks × amount of data; None for an unpublished amount."""
        amount = self.pretraining.amount
        return None if amount is None else self.size.block_parameters * amount


@dataclass(frozen=True)
class TrainingLimit:
    """The memory in which a training must fit."""

    memory_bytes: int
    label: str  # of the training, for people
    peak_of: Callable[[str], int | str]  # checkpoint -> bytes of a step, or why there is no plan


@dataclass(frozen=True)
class Limits:
    """What is asked for beside the task; None asks for nothing."""

    pretrained_on: str | None = None  # words, each of which the facts must have
    max_parameters: int | None = None  # with the head
    training: TrainingLimit | None = None  # asked last, because it traces each network


@dataclass(frozen=True)
class Left:
    """What one criterion left over of the checkpoints before it."""

    criterion: str  # as a predicate: "have at most 10 parameters"
    count: int


@dataclass(frozen=True)
class Recommendation:
    """The checkpoints that match, best first."""

    task: TaskName
    num_labels: int | None  # None for causal_lm
    left: tuple[Left, ...]
    candidates: tuple[Candidate, ...]
    decided_by: tuple[str, ...]  # for each but the first: the key of ORDER that put it behind
    unsuited: Mapping[str, str]  # checkpoint -> why its training cannot be planned


# Smaller comes first; the first key in which two checkpoints differ decides.
ORDER: Mapping[str, Callable[[Candidate, TaskName], Any]] = {
    "task": lambda one, task: one.pretraining.tasks.index(task),
    "languages": lambda one, task: one.pretraining.multilingual,
    "published": lambda one, task: one.pretraining.amount is None,
    "scale": lambda one, task: -(one.size.block_parameters if one.scale is None else one.scale),
    "positions": lambda one, task: not one.pretraining.every_position,
    "fine-tuned": lambda one, task: one.pretraining.further is not None,
    "parameters": lambda one, task: one.size.parameters,
    "name": lambda one, task: one.name,
}


def recommend(task: TaskName, num_labels: int | None, limits: Limits) -> Recommendation:
    """Filter the catalogue and put it in order.

    Raises UserError when nothing matches: what each criterion left over, and which to relax.
    """
    sizes = count_sizes(task, num_labels)
    found = [Candidate(name, PRETRAINING[name], size) for name, size in sizes.items()]
    funnel = _Funnel(found, [Left(f"are for {task}", len(found))])
    if limits.pretrained_on is not None:
        funnel.keep_mentioned(limits.pretrained_on)
    if limits.max_parameters is not None:
        funnel.keep_small(limits.max_parameters)
    if limits.training is not None:
        funnel.keep_trainable(limits.training)
    ordered = sorted(funnel.found, key=lambda one: [key(one, task) for key in ORDER.values()])
    return Recommendation(
        task=task,
        num_labels=num_labels,
        left=tuple(funnel.left),
        candidates=tuple(ordered),
        decided_by=tuple(
            next(name for name, key in ORDER.items() if key(before, task) != key(one, task))
            for before, one in itertools.pairwise(ordered)
        ),
        unsuited=funnel.unsuited,
    )


def left_over(left: Sequence[Left]) -> str:
    """The criteria as a sentence without its full stop."""
    first, *others = left
    steps = [f"{first.count} {first.criterion}"]
    steps += [f"{one.count} of these {one.criterion}" for one in others]
    return f"of {len(CATALOGUE)} checkpoints {'; '.join(steps)}"


@dataclass
class _Funnel:
    """What is left of the checkpoints after each criterion."""

    found: list[Candidate]
    left: list[Left]
    unsuited: dict[str, str] = field(default_factory=dict)

    def keep_mentioned(self, words: str) -> None:
        kept = [one for one in self.found if all(_mentions(one, word) for word in words.split())]
        self._keep(f"are pre-trained on {words!r}", kept, lambda: _other_words(words, self.found))

    def keep_small(self, max_parameters: int) -> None:
        kept = [one for one in self.found if one.size.parameters <= max_parameters]

        def advice() -> str:
            least = min(self.found, key=lambda one: one.size.parameters)
            return f"Raise --max-parameters: {least.name} has {least.size.parameters:,}"

        self._keep(f"have at most {max_parameters:,} parameters", kept, advice)

    def keep_trainable(self, limit: TrainingLimit) -> None:
        planned = []
        for one in self.found:
            peak = limit.peak_of(one.name)
            if isinstance(peak, str):
                self.unsuited[one.name] = peak
            else:
                planned.append((peak, one))
        kept = [
            replace(one, peak_bytes=peak) for peak, one in planned if peak <= limit.memory_bytes
        ]

        def advice() -> str:
            if not planned:
                name, reason = next(iter(self.unsuited.items()))
                return f"Change --strategy or the batch: {name}: {reason}"
            peak, least = min(planned, key=lambda pair: pair[0])
            return (
                f"Raise --memory: {least.name} needs {math.ceil(peak / 2**20)}MiB; or lower "
                "--batch-size, or train less, as with --strategy lora or head"
            )

        self._keep(f"train ({limit.label}) in {limit.memory_bytes / 2**30:.3g} GiB", kept, advice)

    def _keep(self, criterion: str, kept: list[Candidate], advice: Callable[[], str]) -> None:
        self.left.append(Left(criterion, len(kept)))
        if not kept:
            raise UserError(f"nothing matches: {left_over(self.left)}. {advice()}")
        self.found = kept


def count_sizes(task: TaskName, num_labels: int | None) -> dict[str, Size]:
    """Exact sizes of the catalogue's checkpoints for a task, counted once and then kept.

    Raises UserError for a number of labels that the task cannot have.
    """
    names = [name for name, facts in PRETRAINING.items() if task in facts.tasks]
    question = {
        "sizes_of": {name: CATALOGUE[name] for name in names},
        "task": task,
        "num_labels": num_labels,
    }
    return cached(
        question,
        lambda: {name: _count_size(name, task, num_labels) for name in names},
        to_json=lambda sizes: {name: asdict(size) for name, size in sizes.items()},
        from_json=lambda values: {name: Size(**values[name]) for name in names},
    )


def _count_size(name: str, task: TaskName, num_labels: int | None) -> Size:
    counts = count_strategies(
        name, task=task, num_labels=num_labels, strategies=[StrategyConfig("full")]
    )
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = CATALOGUE[name]
    config: Any = CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
    report = counts.strategies[0].report
    own = [row.total for row in report.by_depth if row.name.startswith("block ")]
    return Size(
        parameters=report.total,
        block_parameters=sum(own) * config.num_hidden_layers // len(own),
        blocks=config.num_hidden_layers,
        own_blocks=len(own),
        hidden_size=config.hidden_size,
    )


def _mentions(candidate: Candidate, word: str) -> bool:
    """Whether a word of the checkpoint's facts begins with ``word``."""
    return bool(re.search(rf"\b{re.escape(word)}", candidate.pretraining.text, re.IGNORECASE))


def _other_words(words: str, found: Sequence[Candidate]) -> str:
    """Which word nothing mentions, what is near it, and the corpora that there are."""
    unknown = [w for w in words.split() if not any(_mentions(one, w) for one in found)]
    if not unknown:
        return "Name fewer words in --pretrained-on: each occurs, but no checkpoint has all"
    known = {w.lower() for one in found for w in re.findall(r"[\w-]{3,}", one.pretraining.text)}
    near = difflib.get_close_matches(unknown[0].lower(), sorted(known), cutoff=0.8)
    hint = f"; near it: {', '.join(near)}" if near else ""
    corpora = dict.fromkeys(corpus for one in found for corpus in one.pretraining.corpora)
    return (
        f"Change --pretrained-on: {unknown[0]!r} occurs in none{hint}. "
        f"The corpora are: {'; '.join(corpora)}"
    )
