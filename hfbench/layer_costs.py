"""Parameters and multiply-adds of single real layers, built without memory for their weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hfbench.layers import Layer, LayerCost


def measure_layer(layer: Layer) -> LayerCost:
    """Build the module on the meta device, count it, and run one sample through it.

    Multiply-adds are half of what PyTorch's FLOP counter sees: matrix products and convolutions,
    without biases. Counts and formulas must agree.
    """
    with torch.device("meta"):
        module, inputs = _build(layer)
        with FlopCounterMode(display=False) as counter:
            output = module.eval()(*inputs)
    cost = LayerCost(
        layer=layer,
        parameters=sum(p.numel() for p in module.parameters()),
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        multiply_adds=counter.get_total_flops() // 2,
        output_shape=tuple((output[0] if isinstance(output, tuple) else output).shape[1:]),
    )
    kind, sizes = layer.kind, layer.formula_sizes
    assert cost.parameters == kind.parameters.value(sizes), cost
    assert cost.trainable == (kind.trainable or kind.parameters).value(sizes), cost
    assert cost.multiply_adds == kind.multiply_adds.value(sizes), cost
    return cost


def _build(layer: Layer) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module, and its inputs for one sample."""
    sizes = layer.sizes
    kernel, stride, padding = (sizes.get(name, 0) for name in ("kernel", "stride", "padding"))
    match layer.kind.name:
        case "linear":
            return nn.Linear(sizes["in"], sizes["out"]), _floats(sizes["in"])
        case "conv1d":
            convolution = nn.Conv1d(sizes["in"], sizes["out"], kernel, stride, padding)
            return convolution, _floats(sizes["in"], sizes["length"])
        case "conv2d":
            image = _floats(sizes["in"], sizes["size"], sizes["size"])
            return nn.Conv2d(sizes["in"], sizes["out"], kernel, stride, padding), image
        case "maxpool2d":
            return nn.MaxPool2d(kernel, stride, padding), _image(sizes)
        case "avgpool2d":
            return nn.AvgPool2d(kernel, stride, padding), _image(sizes)
        case "batchnorm2d":
            return nn.BatchNorm2d(sizes["channels"]), _image(sizes)
        case "layernorm":
            return nn.LayerNorm(sizes["hidden"]), _floats(sizes["hidden"])
        case "embedding":
            tokens = torch.empty(1, sizes["length"], dtype=torch.int64)
            return nn.Embedding(sizes["vocabulary"], sizes["hidden"]), (tokens,)
        case "attention":
            attention = nn.MultiheadAttention(sizes["hidden"], sizes["heads"], batch_first=True)
            return attention, _floats(sizes["length"], sizes["hidden"]) * 3  # queries, keys, values
        case "lora":
            return _linear_with_lora(sizes), _floats(sizes["in"])
    raise AssertionError(f"{layer.kind.name} is not built here")


def _linear_with_lora(sizes: Mapping[str, int]) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model  # here, because others need no PEFT

    network = nn.Sequential(nn.Linear(sizes["in"], sizes["out"]))
    config = LoraConfig(r=sizes["r"], target_modules=["0"])
    adapted: nn.Module = inject_adapter_in_model(config, network)
    return adapted


def _floats(*shape: int) -> tuple[Tensor, ...]:
    return (torch.empty(1, *shape),)


def _image(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    return _floats(sizes["channels"], sizes["size"], sizes["size"])
