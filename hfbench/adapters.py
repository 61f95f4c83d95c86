"""Adapters of PEFT on layers that are found by their place: LoRA, DoRA and (IA)³."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from hfbench.config import StrategyConfig
from hfbench.errors import UserError
from hfbench.feed_forward import feed_forward_outputs
from hfbench.models.loading import quiet
from hfbench.models.module_tree import has_parameters
from hfbench.models.structure import Structure, canonical_name, is_duplicate, linear_layers


def add_adapter(
    model: nn.Module,
    structure: Structure,
    strategy: StrategyConfig,
    blocks: Sequence[str],
    trained: set[int],
) -> nn.Module:
    """Wrap the model with the strategy's adapters inside ``blocks``.

    Modules that hold parameters with the ids ``trained`` train whole, and are saved with them.
    The names of all targets are given in full and no task type is set: PEFT's own defaults would
    freeze a new head or adapt layers outside the blocks.

    Raises UserError for a network that has no such layers, or a head that PEFT cannot save.
    """
    from peft import get_peft_model  # here, because the other strategies need no PEFT

    feed_forward: list[str] = []
    if strategy.name == "ia3":
        feed_forward = feed_forward_outputs(model, structure, blocks)
        found = linear_layers(model, structure, "attention_kv", blocks) + feed_forward
    else:
        found = linear_layers(model, structure, strategy.targets, blocks)
    targets = [
        name
        for name in found
        if not any(id(parameter) in trained for parameter in model.get_submodule(name).parameters())
    ]
    if not targets:
        raise UserError(
            f"strategy {strategy.label!r}: every targeted layer is newly initialised, there is "
            "nothing pretrained to adapt. Choose scratch."
        )
    whole = _modules_to_train_whole(model, targets, trained, single=strategy.name == "ia3")
    _check_endings(model, whole)
    trained_names = {name for name, p in model.named_parameters() if id(p) in trained}
    shared: dict[str, Any] = {
        "target_modules": targets,
        "modules_to_save": whole or None,
        # GPT-2's Conv1D stores its weight as (inputs, outputs)
        "fan_in_fan_out": not any(isinstance(model.get_submodule(n), nn.Linear) for n in targets),
    }
    if strategy.name == "ia3":
        config = _ia3(shared, [name for name in feed_forward if name in targets])
    else:
        config = _lora(shared, strategy)
    with quiet():
        try:
            peft_model: nn.Module = get_peft_model(model, config)
        except ValueError as error:  # Mamba's output layer, for instance, is never called
            raise UserError(f"strategy {strategy.label!r}: PEFT says: {error}") from error
    for name, parameter in peft_model.named_parameters():
        adapter = structure.part_of(name) == "adapter"
        kept = canonical_name(name) in trained_names and not is_duplicate(name)
        parameter.requires_grad = adapter or kept
    return peft_model


def _lora(shared: Mapping[str, Any], strategy: StrategyConfig) -> Any:
    """LoRA (Hu et al. 2021); DoRA (Liu et al. 2024) beside it trains the columns' lengths."""
    from peft import LoraConfig

    return LoraConfig(
        r=strategy.r,
        lora_alpha=strategy.lora_alpha,
        lora_dropout=strategy.lora_dropout,
        use_dora=strategy.name == "dora",
        **shared,
    )


def _ia3(shared: Mapping[str, Any], feed_forward: Sequence[str]) -> Any:
    """(IA)³ (Liu et al. 2022, section 3.3): a factor for each key, value and inner value.

    Where one layer gives query, key and value, PEFT scales all three. In plain dot-product
    attention a query's factor acts only through the product with the key's, so that no other
    functions are learnt.
    """
    from peft import IA3Config

    return IA3Config(feedforward_modules=list(feed_forward), **shared)


def _modules_to_train_whole(
    model: nn.Module, targets: Collection[str], trained: set[int], name: str = "", *, single: bool
) -> list[str]:
    """The largest modules that PEFT must copy, train and save so that ``trained`` ids train.

    ``single``: only layers without others inside, as PEFT cannot merge (IA)³ where it copied more.
    """
    module = model.get_submodule(name)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    if not any(id(parameter) in trained for parameter in parameters.values()):
        return []
    whole = all(id(parameter) in trained for parameter in parameters.values())
    if name and whole and not (single and any(map(has_parameters, module.children()))):
        return [name]
    direct = [n for n, p in module.named_parameters(recurse=False) if id(p) in trained]
    if direct:
        outside = {id(p) for n, p in model.named_parameters() if not n.startswith(f"{name}.")}
        shared = any(id(parameter) in outside for parameter in parameters.values())
        if not name or shared or any(target.startswith(f"{name}.") for target in targets):
            raise UserError(
                f"an adapter cannot train {', '.join(f'{name}.{n}'.lstrip('.') for n in direct)}: "
                "its file holds whole modules, and this parameter has none of its own. "
                "Choose another strategy, or a model configuration without this parameter."
            )
        return [name]
    return [
        found
        for child, _ in module.named_children()
        for found in _modules_to_train_whole(
            model, targets, trained, f"{name}.{child}" if name else child, single=single
        )
    ]


def _check_endings(model: nn.Module, whole: list[str]) -> None:
    """PEFT compares only the ends of names, and would copy others that end alike."""
    others = [
        name
        for name, _ in model.named_modules(remove_duplicate=False)
        if name.endswith(tuple(whole)) and name not in whole
    ]
    if others:
        raise UserError(
            f"an adapter cannot train {', '.join(whole)}: PEFT would also take "
            f"{', '.join(others)}, whose names end alike. Choose another strategy."
        )
