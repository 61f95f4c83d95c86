"""The base of an adapter in 4 bits: QLoRA (Dettmers et al. 2023)."""

import math
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn

from hfbench.errors import UserError
from hfbench.models.module_tree import is_linear
from hfbench.models.structure import Structure, linear_layers

NF4 = "nf4"  # 4-bit NormalFloat, section 3 of the paper
LEAST_VERSION = "0.50"  # of bitsandbytes: the first whose products read a weight as it lies


def require_bitsandbytes() -> None:
    """Raise UserError where the library that packs and multiplies 4-bit weights is missing."""
    try:
        found = version("bitsandbytes")
    except PackageNotFoundError:
        found = "not installed"
    if found == "not installed" or Version(found) < Version(LEAST_VERSION):
        raise UserError(
            f"strategy qlora needs bitsandbytes >= {LEAST_VERSION}, which here is {found}: "
            f"pip install 'bitsandbytes>={LEAST_VERSION}', or choose lora"
        )


def block_linears(model: nn.Module, structure: Structure) -> list[str]:
    """Names of the layers that QLoRA packs: all linear ones of all blocks."""
    return linear_layers(model, structure, "all_linear", structure.blocks)


def quantize(model: Any, layers: Sequence[str]) -> None:
    """Replace these frozen linear layers of a ``PeftModel`` by ones with 4-bit weights.

    ``layers``: names in the network before PEFT wrapped it. What PEFT copied to train it whole
    stays as it is. The network's configuration then says so (``base_weights``), because an adapter
    fits the base with which it was trained.
    """
    _count_products()
    network = model.get_base_model()
    for name in layers:
        parent_name, _, own_name = name.rpartition(".")
        parent, layer = network.get_submodule(parent_name), network.get_submodule(name)
        if hasattr(layer, "base_layer"):  # adapted
            parent, own_name, layer = layer, "base_layer", layer.base_layer
        if is_linear(layer):
            setattr(parent, own_name, FourBitLinear(layer))
    network.config.base_weights = NF4


def _count_products() -> None:
    """Teach PyTorch's counter of operations the library's product."""
    import bitsandbytes  # noqa: F401 (registers the operator)
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    def operations(values: Any, packed: Any, weight: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(values) * weight[0])

    product = torch.ops.bitsandbytes.gemm_4bit
    if product not in flop_registry:
        register_flop_formula(product)(operations)


class FourBitLinear(nn.Module):
    """A frozen linear layer: 64 weights share a scale, and 256 scales share one (section 3).

    The values lie in buffers, so that they move with the model. Products are computed in the type
    of the input, under autocast in autocast's.
    """

    def __init__(self, linear: nn.Module) -> None:
        """``linear``: an ``nn.Linear``, or GPT-2's ``Conv1D``, whose weight is transposed."""
        super().__init__()
        from bitsandbytes.functional import quantize_4bit

        weight: Any = linear.weight
        if not isinstance(linear, nn.Linear):
            weight = weight.T
        packed, state = quantize_4bit(
            weight.detach().contiguous(), quant_type=NF4, compress_statistics=True
        )
        self.shape, self.dtype = tuple(weight.shape), weight.dtype
        self.blocksize, self.outer_blocksize = state.blocksize, state.state2.blocksize
        buffers = {
            "packed": packed,
            "scales": state.absmax,
            "code": state.code,
            "offset": state.offset,
            "outer_scales": state.state2.absmax,
            "outer_code": state.state2.code,
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)
        self.bias: nn.Parameter | None = getattr(linear, "bias", None)

    def forward(self, values: Tensor) -> Tensor:
        """``values``: (..., inputs); returns (..., outputs)."""
        import bitsandbytes

        device = values.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            values = values.to(torch.get_autocast_dtype(device))
        bias = None if self.bias is None else self.bias.to(values.dtype)
        library: Any = bitsandbytes  # its annotations are not complete
        product: Tensor = library.matmul_4bit(
            values, self.packed, quant_state=self._state(), bias=bias
        )
        return product

    def _state(self) -> Any:
        from bitsandbytes.functional import QuantState

        outer = QuantState(
            absmax=self.outer_scales,
            code=self.outer_code,
            blocksize=self.outer_blocksize,
            dtype=torch.float32,
        )
        return QuantState(
            absmax=self.scales,
            shape=torch.Size(self.shape),
            code=self.code,
            blocksize=self.blocksize,
            quant_type=NF4,
            dtype=self.dtype,
            offset=self.offset,
            state2=outer,
        )
