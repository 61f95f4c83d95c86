"""Parameters and multiply-adds of each layer of a network's block, traced without weights."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from hfbench.cost import ModuleCall, trace_modules
from hfbench.layers import BlockCost, BlockLayer
from hfbench.models.configuration import find_configuration
from hfbench.models.inputs import meta_batch
from hfbench.models.meta import build_network, choose_head
from hfbench.models.structure import find_structure


def measure_block(checkpoint: str, *, max_length: int, max_seconds: float) -> BlockCost:
    """The layers of a checkpoint's first block, for one sample.

    Texts have ``max_length`` tokens, waveforms ``max_seconds`` at 16 kHz, images the size that
    the configuration names. Raises UserError and HubUnreachableError as counting does, and
    UserError for inputs that do not fit the network or that are not known.
    """
    configuration = find_configuration(checkpoint)
    network = build_network(configuration, choose_head(configuration, None, None))
    structure = find_structure(network)
    batch = meta_batch(network, 1, max_length=max_length, max_seconds=max_seconds)
    del batch["labels"]  # of the head, which is not run
    input_name = next(iter(batch))
    modules = dict(network.get_submodule(structure.blocks[0]).named_modules())
    calls = trace_modules(network.get_submodule(structure.backbone), batch, modules)
    end = next(index for index, call in enumerate(calls) if not call.name)
    totals = [
        sum(parameter.numel() for parameter in network.get_submodule(block).parameters())
        for block in structure.blocks
    ]
    cost = BlockCost(
        checkpoint=checkpoint,
        source=configuration.source,
        depth=structure.depth,
        alike=len(set(totals)) == 1,
        input_name=input_name,
        input_shape=tuple(batch[input_name].shape[1:]),
        layers=tuple(_block_layers(modules, calls[: end + 1])),  # a shared block runs again
        output_shape=_of_one_sample(calls[end].output_shape),
    )
    assert cost.parameters == totals[0], (cost, totals)
    return cost


def _block_layers(
    modules: Mapping[str, nn.Module], calls: Sequence[ModuleCall]
) -> Iterator[BlockLayer]:
    """Layers with parameters or work, then those whose weights another layer reads.

    Containers have what is their own; identities are left out. A layer that runs several times
    (one dropout in two places) has one row.
    """
    flops: Counter[str] = Counter()
    shapes: dict[str, tuple[int, ...]] = {}
    for call in calls:
        flops[call.name] += call.own_flops
        shapes.setdefault(call.name, _of_one_sample(call.output_shape))
    for name in (*shapes, *(name for name in modules if name not in shapes)):
        module = modules[name]
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        works = name in shapes and not isinstance(module, nn.Identity)
        is_container = next(module.children(), None) is not None
        if parameters or flops[name] or (works and not is_container):
            yield BlockLayer(
                name=name,
                kind=type(module).__name__,
                parameters=parameters,
                multiply_adds=flops[name] // 2,
                output_shape=shapes.get(name),
                is_container=is_container,
            )


def _of_one_sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the batch dimension; layers that see a sample in pieces (windows) keep theirs."""
    return shape[1:] if shape[0] == 1 else shape
