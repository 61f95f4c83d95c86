"""Tokenised texts as flat arrays, padded a whole batch at a time."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import torch
from datasets import Dataset
from torch import Tensor

from hfbench.errors import UserError

Integers = npt.NDArray[np.integer[Any]]

Side = Literal["left", "right"]

IGNORED = -100  # label of a token that is not to be predicted, as transformers' losses take it


@dataclass(frozen=True)
class Padding:
    """How a batch is padded to its longest text, as a tokenizer's ``pad`` does it.

    Attributes:
        values: what fills each feature; features that are not listed cannot be padded.
        side: where the padding goes; None: nowhere, so that a batch is of texts of one length.
        multiple_of: the width of a batch is rounded up to a multiple of this.
    """

    values: Mapping[str, int]
    side: Side | None = "right"
    multiple_of: int = 1

    @classmethod
    def of(cls, tokenizer: Any, *, multiple_of: int = 1) -> "Padding":
        values = {
            tokenizer.model_input_names[0]: tokenizer.pad_token_id,
            "token_type_ids": tokenizer.pad_token_type_id,
            "attention_mask": 0,
            "special_tokens_mask": 1,
        }
        return cls(values, tokenizer.padding_side, multiple_of)


class TokenSamples:
    """A split of texts: every feature as one array of all its tokens, one text behind the other.

    Where the tokens lie in one piece in a data set's memory map they stay there. ``labels`` are of
    whole texts, or a feature with one for each token where ``padding`` has a value for them.

    Attributes:
        facts: what is to be said of all texts together.
    """

    facts: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self,
        features: Mapping[str, Integers],
        lengths: Integers,
        labels: npt.NDArray[Any] | None,
        padding: Padding,
    ) -> None:
        """``features``: (tokens of all texts,) each; ``lengths``, ``labels``: (texts, ...).

        Raises UserError for a feature without a padding value.
        """
        if unknown := features.keys() - padding.values:
            raise UserError(
                f"the tokenizer gives {', '.join(sorted(unknown))}, which cannot be padded; "
                f"known: {', '.join(padding.values)}"
            )
        self.features, self.padding = features, padding
        self.label_array = None if labels is None else _like_tensors(labels)
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        assert all(len(array) == self.offsets[-1] for array in features.values())

    @classmethod
    def of_dataset(cls, dataset: Dataset, padding: Padding) -> "TokenSamples":
        """Of columns with a list for each text, beside ``labels`` where it has them."""
        table: Any = dataset.with_format("arrow")[:]  # in the order of its indices
        chunks = {name: table[name].chunks for name in table.column_names}
        labels = chunks.pop("labels", None)
        return cls(
            {name: _joined([part.flatten() for part in parts]) for name, parts in chunks.items()},
            _joined([part.value_lengths() for part in next(iter(chunks.values()))]),
            None if labels is None else _joined_labels(labels),
            padding,
        )

    @classmethod
    def of_samples(cls, samples: Sequence[Mapping[str, Any]], padding: Padding) -> "TokenSamples":
        """Of single samples, as ``samples[index]`` gives them."""
        of_texts = "labels" in samples[0] and "labels" not in padding.values
        names = [name for name in samples[0] if name != "labels" or not of_texts]
        labels = [sample["labels"] for sample in samples] if of_texts else None
        return cls(
            {
                name: np.fromiter(chain.from_iterable(s[name] for s in samples), dtype=np.int64)
                for name in names
            },
            np.array([len(sample[names[0]]) for sample in samples]),
            None if labels is None else np.array(labels),
            padding,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Every feature as a list of ints; ``labels``: a number, or a list of some."""
        place = range(len(self))[index]  # negative ones too; raises IndexError
        start, end = self.offsets[place], self.offsets[place + 1]
        sample: dict[str, Any] = {
            n: array[start:end].tolist() for n, array in self.features.items()
        }
        if self.label_array is not None:
            sample["labels"] = self.label_array[place].tolist()
        return sample

    def labels(self) -> list[Any]:
        """Of every text, which must have them."""
        assert self.label_array is not None
        labels: list[Any] = self.label_array.tolist()
        return labels

    def lengths(self) -> list[int]:
        """Tokens of every text."""
        lengths: list[int] = np.diff(self.offsets).tolist()
        return lengths

    def digest(self) -> str:
        """Of everything that a model reads: equal for equal texts and tokenizers."""
        digest = hashlib.sha256(self.offsets.tobytes())
        for name, array in sorted(self.features.items()):
            digest.update(f"{name} {array.dtype} ".encode() + array.tobytes())
        return digest.hexdigest()

    def read_batch(self, indices: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Every feature: (batch, width), int64, padded; ``labels``: (batch, ...), as they are."""
        chosen = np.asarray(indices)
        starts = self.offsets[chosen, np.newaxis]
        lengths = self.offsets[chosen + 1, np.newaxis] - starts
        multiple = self.padding.multiple_of
        width = -(-int(lengths.max()) // multiple) * multiple
        assert self.padding.side is not None or (lengths == width).all(), "nothing may be padded"
        positions = np.arange(width)  # of the tokens within their text, below
        if self.padding.side == "left":
            positions = positions - (width - lengths)
        real = (positions >= 0) & (positions < lengths)
        places = np.where(real, starts + positions, 0)
        batch = {
            name: np.where(real, array[places].astype(np.int64), self.padding.values[name])
            for name, array in self.features.items()
        }
        if self.label_array is not None:
            batch["labels"] = self.label_array[chosen]
        return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def _joined(chunks: Sequence[Any]) -> Integers:
    """Arrow arrays of numbers as one; a single one is not copied."""
    arrays: list[Integers] = [chunk.to_numpy(zero_copy_only=True) for chunk in chunks]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _joined_labels(chunks: Sequence[Any]) -> npt.NDArray[Any]:
    """Arrow arrays of labels as one: (texts,), or (texts, labels) of lists of one length."""
    if pa.types.is_fixed_size_list(chunks[0].type):
        width = chunks[0].type.list_size
        return _joined([chunk.flatten() for chunk in chunks]).reshape(-1, width)
    return _joined(chunks)


def _like_tensors(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers as int64, others as float32, as losses want them."""
    return labels.astype(np.int64 if labels.dtype.kind in "iu" else np.float32, copy=False)
