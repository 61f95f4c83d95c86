"""Names for stored outputs: equal names stand for equal numbers, up to rounding."""

import hashlib
import json
from typing import Any

from torch import Tensor, nn

from hfbench.models.structure import Structure
from hfbench.provenance import versions
from hfbench.training.prefix.cut import Place, prefix_tensors
from hfbench.training.prefix.store import memory_of

_LIBRARIES = ("torch", "transformers", "timm")


class PrefixKeys:
    """Keys of a model's prefixes: of its weights, its configuration, the libraries, the run.

    The weights count by their values, so that runs of different strategies and seeds share.
    """

    def __init__(self, model: nn.Module, structure: Structure, **settings: Any) -> None:
        config: Any = getattr(model, "config", None)
        self.header = {
            "network": config.to_dict() if hasattr(config, "to_dict") else repr(model),
            "attention": getattr(config, "_attn_implementation", None),
            "versions": {name: versions().get(name) for name in _LIBRARIES},
            "settings": settings,
        }
        self.tensors = {
            name: _tensor_digest(tensor)
            for name, tensor in prefix_tensors(model, structure, Place(structure.depth, True))
        }
        self.model, self.structure = model, structure

    def key(self, place: Place, samples: str, **reading: Any) -> str:
        """For a split whose contents have the digest ``samples``; 32 hexadecimal digits."""
        inside = {
            name: self.tensors[name]
            for name, _ in prefix_tensors(self.model, self.structure, place)
        }
        values = [self.header, str(place), inside, samples, reading]
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _tensor_digest(tensor: Tensor) -> str:
    return hashlib.sha256(memory_of(tensor.detach().cpu().contiguous())).hexdigest()
