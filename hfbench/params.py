"""How many parameters each strategy trains, from a checkpoint's configuration alone.

Light until something must be counted: a repeated question is answered from the disk.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from hfbench.answers import cached
from hfbench.config import ADAPTERS, StrategyConfig, TargetKind
from hfbench.errors import UserError
from hfbench.models.configuration import Configuration, find_configuration
from hfbench.results import ParameterReport

if TYPE_CHECKING:
    from torch import nn

    from hfbench.models.structure import Structure


@dataclass(frozen=True)
class StrategyCounts:
    """The parameters under one strategy."""

    strategy: str  # full label, such as last_2 or lora:r=8,targets=attention_qv
    report: ParameterReport
    adapters: dict[str, int]  # part, such as block 3 -> parameters of the adapters inside it

    @property
    def adapter_total(self) -> int:
        """Parameters that the strategy adds to the network."""
        return sum(self.adapters.values())

    def trainable_over_depth(self) -> dict[str, int]:
        """Part -> parameters that train there, with adapters at the part that they adapt."""
        own = {r.name: r.trainable for r in self.report.by_depth if r.name != "adapter"}
        return {part: count + self.adapters.get(part, 0) for part, count in own.items()}


@dataclass(frozen=True)
class ParameterCounts:
    """The parameters of one network under several strategies."""

    checkpoint: str
    task: str
    num_labels: int | None  # None for causal_lm
    notes: tuple[str, ...]  # where configuration, task and labels come from
    strategies: tuple[StrategyCounts, ...]

    def to_json(self) -> dict[str, Any]:
        """What is kept of an answer: everything that follows from configuration and options."""
        return {
            "task": self.task,
            "num_labels": self.num_labels,
            "notes": list(self.notes[1:]),
            "strategies": [
                {
                    "strategy": counts.strategy,
                    "report": counts.report.to_dict(),
                    "adapters": counts.adapters,
                }
                for counts in self.strategies
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], configuration: Configuration) -> Self:
        """Raises ValueError, KeyError or TypeError for what :meth:`to_json` did not write."""
        return cls(
            checkpoint=configuration.checkpoint,
            task=values["task"],
            num_labels=values["num_labels"],
            notes=(_source_note(configuration), *values["notes"]),
            strategies=tuple(
                StrategyCounts(
                    item["strategy"],
                    ParameterReport.from_dict(item["report"]),
                    {part: int(count) for part, count in item["adapters"].items()},
                )
                for item in values["strategies"]
            ),
        )


def count_strategies(
    checkpoint: str,
    *,
    task: str | None = None,
    num_labels: int | None = None,
    strategies: Sequence[StrategyConfig] | None = None,
) -> ParameterCounts:
    """Count a checkpoint's parameters under every strategy, without its weights.

    None stands for: the task that fits the architecture, the checkpoint's own number of labels,
    strategies that suit the network. Every parameter of a classification head counts as newly
    initialised, everything else as pretrained, as with a plain base checkpoint.

    Raises UserError for an unknown checkpoint, architecture, task or structure, and for a
    strategy that does not suit it; HubUnreachableError when only the hub knows the checkpoint.
    """
    configuration = find_configuration(checkpoint)
    labels = None if strategies is None else [strategy.full_label for strategy in strategies]
    question = {
        "parameters_of": configuration.values,
        "task": task,
        "num_labels": num_labels,
        "strategies": labels,
    }
    return cached(
        question,
        lambda: _count(configuration, task, num_labels, strategies),
        to_json=ParameterCounts.to_json,
        from_json=lambda values: ParameterCounts.from_json(values, configuration),
    )


def _source_note(configuration: Configuration) -> str:
    return f"Configuration: {configuration.source}"


def _count(
    configuration: Configuration,
    task: str | None,
    num_labels: int | None,
    strategies: Sequence[StrategyConfig] | None,
) -> ParameterCounts:
    with _without_garbage_collection():
        import torch

        from hfbench.models.meta import build_network, choose_head, new_parameters
        from hfbench.models.structure import find_structure

        head = choose_head(configuration, task, num_labels)
        network = build_network(configuration, head)
        structure = find_structure(network)
        new = new_parameters(network, structure, head)
        chosen = strategies
        if chosen is None:
            chosen = suitable_strategies(network, structure, new)
        found = {}
        with torch.device("meta"):  # where adapters are made
            for strategy in chosen:
                # Adapters change the network, the others only which of its parameters train.
                changes = strategy.name in ADAPTERS
                own = build_network(configuration, head) if changes else network
                found[strategy.full_label] = _count_strategy(own, structure, strategy, new)
        return ParameterCounts(
            checkpoint=configuration.checkpoint,
            task=head.task,
            num_labels=head.num_labels,
            notes=(_source_note(configuration), *head.notes),
            strategies=tuple(found.values()),
        )


def _count_strategy(
    network: "nn.Module", structure: "Structure", strategy: StrategyConfig, new: list[str]
) -> StrategyCounts:
    from hfbench.parameters import count_parameters
    from hfbench.strategies import apply_strategy

    trained = apply_strategy(network, structure, strategy, new)
    adapters: Counter[str] = Counter()
    for name, parameter in trained.named_parameters():
        adapted = structure.adapted_part(name)
        if adapted is not None:
            adapters[adapted] += parameter.numel()
    report = count_parameters(trained, structure)
    return StrategyCounts(strategy.full_label, report, dict(adapters))


def suitable_strategies(
    network: "nn.Module", structure: "Structure", new: list[str]
) -> list[StrategyConfig]:
    """Those that train something in this network, from all of it to little."""
    names = [name for name, _ in network.named_parameters()]
    has_head = bool(new) or any(structure.part_of(name) == "head" for name in names)
    targets = _lora_targets(network, structure)
    has_biases = any(name.endswith(".bias") for name in names)
    return [
        StrategyConfig("full"),
        *([StrategyConfig("head")] if has_head else []),
        StrategyConfig("last_n", n=min(2, structure.depth)),
        *([StrategyConfig("lora", targets=targets)] if targets else []),
        *([StrategyConfig("bitfit")] if has_head or has_biases else []),
    ]


def _lora_targets(network: "nn.Module", structure: "Structure") -> TargetKind | None:
    """Query and value, else every linear layer; None for a network of convolutions."""
    from hfbench.models.structure import linear_layers

    kinds: tuple[TargetKind, ...] = ("attention_qv", "all_linear")
    for kind in kinds:
        try:
            linear_layers(network, structure, kind, structure.blocks)
        except UserError:  # it has none of this kind
            continue
        return kind
    return None


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Imports and networks make millions of objects that all stay: nothing would be collected.

    Saves a seventh of the time of the imports.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
