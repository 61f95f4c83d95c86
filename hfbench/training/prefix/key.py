"""Names for stored outputs: equal names stand for equal numbers, up to rounding."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.models.calls import Calls
from hfbench.models.structure import Structure, canonical_name
from hfbench.provenance import code_digest, versions
from hfbench.training.batching import Collate, SampleSource, Share, load_batches
from hfbench.training.prefix.cut import Cut, Place, prefix_tensors
from hfbench.training.prefix.store import memory_of

_LIBRARIES = ("torch", "transformers", "timm")


class PrefixKeys:
    """Keys of a model's prefixes: of its weights and configuration, the run, libraries and code.

    The weights count by their values, so that runs of different strategies and seeds share.
    """

    def __init__(
        self, model: nn.Module, structure: Structure, calls: Calls, **settings: Any
    ) -> None:
        """``calls``: of one forward pass of the model."""
        config: Any = getattr(model, "config", None)
        self.header = {
            "network": config.to_dict() if hasattr(config, "to_dict") else repr(model),
            "attention": getattr(config, "_attn_implementation", None),
            "versions": {name: versions().get(name) for name in _LIBRARIES},
            "code": code_digest(),
            "settings": settings,
        }
        self.tensors = {
            name: tensor_digest(tensor)
            for name, tensor in prefix_tensors(model, structure, Place(structure.depth, True))
        }
        self.model, self.structure, self.calls = model, structure, calls

    def key(self, cut: Cut, samples: str) -> str:
        """Of what a cut gives for a split whose contents have the digest ``samples``.

        32 hexadecimal digits.
        """
        named = {name for name, _ in prefix_tensors(self.model, self.structure, cut.place)}
        inside = {
            name: digest
            for name, digest in self.tensors.items()
            if name in named or self._runs_before(name, cut.end(self.calls))
        }
        reading = {"leaf": cut.leaf, "positions": cut.positions}
        values = [self.header, str(cut.place), inside, samples, reading]
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _runs_before(self, name: str, end: int) -> bool:
        """Whether it belongs to a module that runs inside, whatever it is called."""
        owner = self.calls.owner(canonical_name(name))
        return owner not in ("", *self.structure.containers) and self.calls.starts[owner] < end


def received(samples: SampleSource, collate: Collate) -> str:
    """Digest of what the model is given for the first, the middle and the last sample.

    A split knows its contents, not what collating them still does: scaling and normalising images,
    adding special values.
    """
    count = len(samples)
    shares = [Share((index,)) for index in (0, count // 2, count - 1)]
    digest = hashlib.sha256()
    for batch in load_batches(samples, shares, collate, device=torch.device("cpu")):
        for name in sorted(batch.keys() - {"labels"}):
            tensor = batch[name]
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor_digest(tensor).encode())
    return digest.hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    return hashlib.sha256(memory_of(tensor.detach().cpu().contiguous())).hexdigest()
