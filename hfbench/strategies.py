"""Which parameters train, and how everything that does not is kept frozen and deterministic.

A strategy is one small rule over the parts that ``find_structure`` found. No layer is named here.
"""

import fnmatch
import math
import re
from collections.abc import Callable, Collection, Iterator

from torch import nn

from hfbench.adapters import add_adapter
from hfbench.config import ADAPTERS, StrategyConfig
from hfbench.errors import UserError
from hfbench.models.module_tree import has_parameters, is_attention, is_norm, join
from hfbench.models.structure import Structure, canonical_name, is_duplicate

# Multiples of the learning rate of full fine-tuning. LoRA wants about ten times as much (Schulman
# et al. 2025, "LoRA Without Regret"); a head alone or biases alone want more,
# factors that start at 1 most (3e-3 in Liu et al. 2022, section 3.5, beside the usual 5e-5).
_LEARNING_RATE_FACTORS = {
    "lora": 10.0,
    "dora": 10.0,
    "qlora": 10.0,
    "ia3": 50.0,
    "head": 20.0,
    "bitfit": 20.0,
    "norm": 20.0,
}


def apply_strategy(
    model: nn.Module,
    structure: Structure,
    strategy: StrategyConfig,
    new_parameters: Collection[str] = (),
) -> nn.Module:
    """Set which parameters train; returns the model to train.

    That is ``model`` itself, or a ``peft.PeftModel`` around it for an adapter. ``new_parameters``
    are the names that the checkpoint did not contain: randomly initialised, so they always train.
    A parameter that is used twice (a tied output layer) belongs to the part that uses it first.

    Raises UserError if nothing would train, if a new parameter would stay frozen, if the strategy
    asks for blocks that do not exist, or if a pattern of ``strategy.freeze`` matches nothing.
    """
    by_name = dict(model.named_parameters(remove_duplicate=False))
    unknown = sorted(set(new_parameters) - set(by_name))
    if unknown:
        raise ValueError(f"new_parameters that the model does not have: {', '.join(unknown)}")
    new = {id(by_name[name]) for name in new_parameters}
    parts = _trained_parts(model, structure, strategy)
    scattered = set(map(id, _scattered_parameters(model, structure, strategy)))
    trained = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if id(parameter) in new or structure.part_of(name) in parts or id(parameter) in scattered
    }
    if strategy.name in ADAPTERS:
        blocks = [structure.blocks[i] for i in _chosen_blocks(model, structure, strategy)]
        model = add_adapter(model, structure, strategy, blocks, trained)
    else:
        for parameter in model.parameters():
            parameter.requires_grad = id(parameter) in trained
    _freeze_matching(model, strategy.freeze)
    frozen_new = sorted(set(map(canonical_name, new_parameters)) & _frozen_names(model))
    if frozen_new:
        raise UserError(
            f"strategy.freeze={list(strategy.freeze)} would leave parameters at their random "
            f"initial values: {', '.join(frozen_new)}. Narrow the patterns."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        tied = ", they are tied to the embeddings" if structure.head else ""
        why = f"its head ({', '.join(structure.head) or 'none'}) has no parameters of its own{tied}"
        if strategy.freeze:
            why = f"strategy.freeze={list(strategy.freeze)} freezes the rest"
        raise UserError(
            f"strategy {strategy.label!r} trains nothing in this {type(model).__name__}: {why}. "
            "Choose full, last_n, lora, bitfit or norm, or fewer freeze patterns."
        )
    _stop_gradients_at_frozen_input(model)
    return model


def set_training_mode(model: nn.Module, structure: Structure) -> None:
    """Put the model in train mode with everything frozen in eval mode.

    Frozen modules use no dropout and keep fixed norm statistics. While no parameter before the
    first block trains, everything on the way there is in eval mode too (masking and layerdrop of
    Wav2Vec2, GPT-2's first dropout), so the input of the first trained block is a constant of the
    sample. Within a part that trains, modules without parameters (dropout) stay in train mode.
    """
    model.train()
    modules: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # PEFT's wrapper and the module inside it share a canonical name: keep the innermost root
        # (the model itself), else the outermost, which contains the copies that train.
        if canonical_name(name) == "" or canonical_name(name) not in modules:
            modules[canonical_name(name)] = module
    blocks = (name for i in range(structure.depth) for name in structure.block_modules(i))
    parts = (
        *structure.embeddings,
        *blocks,
        *structure.final,
        *structure.pooler,
        *structure.head,
    )
    prefix_trains = any(
        parameter.requires_grad
        for name, parameter in model.named_parameters()
        if structure.part_of(name) == "embeddings"
    )
    _set_containers(modules, structure, prefix_trains)
    for module in (modules[name] for name in parts if name in modules):
        if not _any_trains(module):
            module.eval()
            continue
        for inner in module.modules():
            inner.training = _any_trains(inner) or not has_parameters(inner)


def learning_rate_factor(strategy: StrategyConfig) -> float:
    """By what the learning rate of full fine-tuning is multiplied for this strategy."""
    if strategy.learning_rate_factor is not None:
        return strategy.learning_rate_factor
    return _LEARNING_RATE_FACTORS.get(strategy.name, 1.0)


def unfreezing(
    structure: Structure, strategy: StrategyConfig, new_parameters: Collection[str] = ()
) -> Callable[[str, int], bool] | None:
    """Whether a parameter trains in an epoch (from 0) already; None: all do, from the first on.

    Gradual unfreezing (Howard & Ruder 2018, section 3.3): in the first epochs what comes behind the
    blocks, then from the last to the first one block more, the embeddings at the end. A newly
    initialised parameter trains from the first epoch on.
    """
    if strategy.name != "gradual":
        return None
    new = set(map(canonical_name, new_parameters))

    def trains(name: str, epoch: int) -> bool:
        stage = 0 if canonical_name(name) in new else _stage(structure, structure.part_of(name))
        return epoch >= strategy.every * stage

    return trains


def check_epochs(
    structure: Structure,
    strategy: StrategyConfig,
    epochs: int,
    *,
    max_steps: int | None = None,
    steps_per_epoch: int = 1,
) -> None:
    """Raise UserError where gradual unfreezing would end before everything trains.

    ``max_steps``: after which the training ends, if its epochs have more.
    """
    if strategy.name != "gradual":
        return
    begun, setting, without = epochs, f"training.epochs={epochs}", ""
    if max_steps is not None and max_steps <= (epochs - 1) * steps_per_epoch:
        begun, setting = math.ceil(max_steps / steps_per_epoch), f"training.max_steps={max_steps}"
        without = " without training.max_steps"
    needed = strategy.every * _stage(structure, "embeddings") + 1
    if begun < needed:
        reached = (begun - 1) // strategy.every
        raise UserError(
            f"{setting} ends before strategy {strategy.label!r} has unfrozen "
            f"everything: it reaches the last {reached} of {structure.depth} blocks, and needs "
            f"{needed} epochs for all and the embeddings. Set training.epochs={needed}{without}, "
            f"or choose last_{max(reached, 1)}"
        )


def layer_decay(structure: Structure, decay: float | None) -> Callable[[str], float]:
    """By what layer-wise decay multiplies the learning rate of a parameter.

    What comes behind the blocks has the full rate, each block ``decay`` times that of the block
    behind it, the embeddings the least (Clark et al. 2020, ELECTRA, appendix A; BEiT likewise).
    """

    def factor(name: str) -> float:
        return 1.0 if decay is None else decay ** _stage(structure, structure.place_of(name))

    return factor


def _stage(structure: Structure, part: str) -> int:
    """0 behind the blocks, 1 for the last block, and so on to the embeddings."""
    if part == "embeddings":
        return structure.depth + 1
    return structure.depth - int(part.split()[1]) if part.startswith("block ") else 0


def _trained_parts(model: nn.Module, structure: Structure, strategy: StrategyConfig) -> set[str]:
    """The parts whose parameters all train; adapters and scattered ones come apart."""
    match strategy.name:
        case "full" | "scratch" | "gradual":
            every_block = {f"block {index}" for index in range(structure.depth)}
            return {"embeddings", "final", "pooler", "head"} | every_block
        case "head":
            return {"head"}
        case "lora" | "dora" | "qlora" | "ia3" | "bitfit" | "norm" | "attention":
            return set() if _has_output_layer(model) else {"head"}
        case "last_n" | "first_n" | "blocks":
            chosen = _chosen_blocks(model, structure, strategy)
            return {"head"} | {f"block {index}" for index in chosen}


def _has_output_layer(model: nn.Module) -> bool:
    """Whether the head is a language model's: it was pretrained, over the whole vocabulary.

    A strategy that trains a few parameters here and there leaves it frozen, as the papers do; of a
    7-billion Llama it is 131 of 135 million parameters that LoRA would train with it.
    """
    output_layer = getattr(model, "get_output_embeddings", None)
    return output_layer is not None and output_layer() is not None


def _scattered_parameters(
    model: nn.Module, structure: Structure, strategy: StrategyConfig
) -> Iterator[nn.Parameter]:
    """Those that a strategy trains beside the head, here and there in the backbone."""
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters()}
    match strategy.name:
        case "bitfit":
            yield from (p for name, p in model.named_parameters() if _is_bias(name, p))
        case "norm":
            yield from (p for p in model.parameters() if id(p) in norms)
        case "attention":  # BERT's attention layer has a norm of its own, ViT's has not
            modules = dict(model.named_modules())
            for outer in (n for i in range(structure.depth) for n in structure.block_modules(i)):
                for name, module in modules[outer].named_modules() if outer in modules else ():
                    if name and is_attention(name, module):
                        yield from (p for p in module.parameters() if id(p) not in norms)


def _is_bias(name: str, parameter: nn.Parameter) -> bool:
    """BitFit (Ben Zaken et al. 2022) trains these; a table of position biases is not one."""
    return parameter.ndim == 1 and name.endswith((".bias", "_bias"))


def _chosen_blocks(
    model: nn.Module, structure: Structure, strategy: StrategyConfig
) -> Collection[int]:
    """Indices of the blocks that a strategy trains or, for LoRA, puts adapters in."""
    depth = structure.depth
    count = strategy.last_n if strategy.name in ADAPTERS else strategy.n
    wrong = [index for index in strategy.blocks if not 0 <= index < depth]
    if wrong or (count or 0) > depth:
        layers = getattr(getattr(model, "config", None), "num_hidden_layers", depth)
        shared = f" (they are shared by its {layers} layers)" if layers != depth else ""
        raise UserError(
            f"strategy {strategy.label!r} asks for {f'blocks {wrong}' if wrong else count}, but "
            f"{type(model).__name__} has {depth} blocks, numbered 0 to {depth - 1}{shared}"
        )
    if strategy.name == "blocks":
        return strategy.blocks
    if strategy.name == "first_n":
        return range(count or depth)
    return range(depth - (count or depth), depth)


def _freeze_matching(model: nn.Module, patterns: Collection[str]) -> None:
    named = [(canonical_name(n), p) for n, p in model.named_parameters() if not is_duplicate(n)]
    for pattern in patterns:
        matching = [parameter for name, parameter in named if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            existing = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name, _ in named)
            raise UserError(
                f"strategy.freeze pattern {pattern!r} matches no parameter; they are:\n  "
                + "\n  ".join(existing)
            )
        for parameter in matching:
            parameter.requires_grad = False


def _frozen_names(model: nn.Module) -> set[str]:
    """Canonical names, tied ones included, of the frozen parameters."""
    return {
        canonical_name(name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad and not is_duplicate(name)
    }


def _stop_gradients_at_frozen_input(model: nn.Module) -> None:
    """Keep a frozen Wav2Vec2-like feature encoder out of the gradient graph.

    In train mode it marks its input as needing gradients unless its own freezing method was
    called, and then the whole backbone is back-propagated through for nothing.
    """
    for module in model.modules():
        freeze = getattr(module, "_freeze_parameters", None)
        if callable(freeze) and not _any_trains(module):
            freeze()


def _set_containers(
    modules: dict[str, nn.Module], structure: Structure, prefix_trains: bool
) -> None:
    """Set the containers of the blocks, and the dropouts before and between the blocks.

    A dropout is on where something before it trains, and behind the last block. The root keeps
    train mode: its dropouts stand beside the head, except where it is itself the backbone (timm).
    """
    containers, blocks = set(structure.containers), list(structure.blocks)
    trains = prefix_trains

    def walk(container: str) -> None:
        nonlocal trains
        beside_head = bool(structure.backbone) and not container
        if container:
            modules[container].training = prefix_trains
        for local, child in modules[container].named_children():
            name = join(container, local)
            if name in containers:
                walk(name)
            elif name in blocks:
                index = blocks.index(name)
                inside = (modules[n] for n in structure.block_modules(index) if n in modules)
                trains = trains or index == len(blocks) - 1 or any(map(_any_trains, inside))
            elif not has_parameters(child) and not beside_head:
                child.train(trains)

    walk("")


def _any_trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
