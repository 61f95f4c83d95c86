"""The contract between a task and the one training loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn

from hfbench.config import RunConfig
from hfbench.data.bad_rows import BadRow
from hfbench.data.columns import Modality
from hfbench.data.tokens import Side
from hfbench.models.loading import Loaded
from hfbench.results import WeightsRecord
from hfbench.tasks.generation import Sampling

Loss = Callable[[Tensor, Tensor], Tensor]
Agree = Callable[[Side | None], Side | None]


class Samples(Protocol):
    """A split: features of one sample by its index, the same on every access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TaskData:
    """The three splits as features.

    Attributes:
        label_names: position = label's number; empty for tasks without labels.
        summary: source, split sizes, columns, labels, notes, fingerprint; goes into the result.
        bad_rows: what the data hold and cannot be used, no more than ``data.max_bad_rows``.
    """

    train: Samples
    validation: Samples
    test: Samples
    label_names: tuple[str, ...]
    summary: dict[str, Any]
    bad_rows: tuple[BadRow, ...] = ()


@dataclass(frozen=True)
class BuiltModel:
    """A model in float32 and the names of its parameters that no checkpoint gave."""

    model: nn.Module
    new_parameters: frozenset[str]
    weights: WeightsRecord | None = None  # None where no checkpoint gave any

    @classmethod
    def of(cls, loaded: Loaded) -> "BuiltModel":
        return cls(loaded.model, loaded.new_parameters, loaded.weights)


class Task(ABC):
    """What is learnt. Call ``prepare_data`` first; the rest relies on it.

    The loop only does ``outputs = model(**collate(samples))`` and uses ``outputs.loss``, a mean
    over ``loss_units(batch)``, and ``predictions(outputs, batch)``. What these are:

    - of classifiers: ``labels`` (batch, ...), the number of samples, logits (batch, labels).
    - of speech recognition (CTC): ``labels`` (batch, longest transcript) padded with -100; the
      number of samples, as ``ctc_loss_reduction="mean"`` divides each by its length first; the
      decoded tokens (batch, longest answer), of which the metrics are word error rates.
    - of causal language models: ``labels`` are the input tokens, -100 on padding and prompts; the
      number of predicted tokens; sums of losses and tokens of each sample, so that the perplexity
      is exp(sum / sum) and no logits are kept.
    """

    name: ClassVar[str]
    # After prepare_data, where the metric depends on the data.
    primary_metric: str
    greater_is_better: bool = True
    length_unit: ClassVar[str] = "values"  # of sample_lengths
    tests_untrained: ClassVar[bool] = False  # the primary metric before training means something
    equal_lengths: bool = False  # whether only samples of one length share a batch

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def prepare_data(self) -> TaskData:
        """Load, label, split and preprocess the data, once. Raises UserError for bad data."""

    @abstractmethod
    def build_model(self, data: TaskData) -> BuiltModel:
        """The checkpoint with a head for ``data``; random weights for the strategy ``scratch``."""

    @abstractmethod
    def build_on_meta(self, *, num_labels: int) -> nn.Module:
        """The same network without memory for its weights, from the configuration alone."""

    def settle_padding(
        self, model: nn.Module, splits: Sequence[Samples], agree: Agree
    ) -> str | None:
        """See to it that what ``model`` answers to a sample does not depend on its batch.

        Call it before the first batch of these splits. ``agree`` makes of what a process found what
        all of them do. Returns what to tell people; None where padding is as the processor has it.
        """
        return None

    @abstractmethod
    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Samples as the model's arguments, padded to one length; ``labels`` if they have any."""

    def own_loss(self, data: TaskData) -> Loss | None:
        """Of logits and labels, a mean over the loss units; None: what the model computes."""
        return None

    def target_units(self, data: TaskData) -> tuple[float, float] | None:
        """Mean and standard deviation of train's numbers, of which ``own_loss`` is a squared error.

        None where labels are no numbers.
        """
        return None

    def step_probe(self, device: torch.device | str = "cpu") -> Callable[[], object] | None:
        """Work like a training step's, to choose the number of threads and the precision by.

        None where a step is like a small transformer's.
        """
        return None

    def sample_lengths(self, split: Samples) -> list[int] | None:
        """Tokens or audio samples of every sample; like lengths are put into one batch.

        None where all are alike, or where they are not known without decoding everything.
        """
        return None

    @abstractmethod
    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """Over how many samples or tokens the model's loss of this batch is a mean."""

    @abstractmethod
    def predictions(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """What evaluation keeps of every sample: (batch, ...), float32 or integer."""

    def comparable(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """In what two ways through a model must agree: (batch, ...), float32.

        The predictions, where these are numbers of which small differences can be seen.
        """
        return self.predictions(outputs, batch)

    @abstractmethod
    def compute_metrics(
        self, predictions: npt.NDArray[Any], references: npt.NDArray[np.integer[Any]]
    ) -> dict[str, Any]:
        """Plain numbers and lists over a whole split; ``primary_metric`` is among the keys."""

    def check_batch(self, test: Samples) -> dict[str, Tensor]:
        """On what a saved model is compared with the trained one; its logits are stored."""
        return self.collate([test[i] for i in range(min(8, len(test)))])

    def further_test_metrics(
        self, model: nn.Module, test: Samples, accelerator: Accelerator
    ) -> dict[str, Any]:
        """What ``predictions`` cannot tell of the trained model, such as scores of what it writes.

        Every process calls it and gets the same.
        """
        return {}

    @abstractmethod
    def save_processor(self, folder: Path) -> None:
        """Write what turns raw input into features beside the saved model."""


@dataclass(frozen=True)
class Candidate:
    """One possible answer to one input: a label, a transcript, a continuation."""

    text: str
    probability: float | None = None  # 0 to 1; None where the model gives none


Answer = tuple[Candidate, ...]  # the best first


class PredictingTask(Task):
    """A task whose saved models answer new inputs (``hfbench predict``).

    New inputs become features by the functions that made those of the training: set ``processor``
    to ``load_processor()`` of a configuration whose checkpoint is the saved model, then
    ``features``, ``collate`` and ``answer``. Speech recognition answers with a transcript, a
    language model with what it writes, both perhaps without a probability.
    """

    modality: ClassVar[Modality]
    answer_name: str  # what a candidate is, such as "label"
    input_settings: ClassVar[tuple[str, ...]] = ()  # keys of DataConfig that shape the features

    processor: Any  # tokenizer, image processor or feature extractor
    sampling: Sampling | None = None  # how the model writes; None for tasks that write nothing

    @abstractmethod
    def load_processor(self) -> Any:
        """What turns raw input into features. Raises UserError when the checkpoint has none."""

    def processor_of(self, folder: Path) -> Any:
        """As ``load_processor``, of the saved model in ``folder``, the configured checkpoint."""
        return self.load_processor()

    @abstractmethod
    def features(self, rows: Dataset, title: str, *, keep: bool) -> Samples:
        """Rows of :class:`hfbench.data.splits.Splits`, with or without ``labels``, as samples.

        ``title`` says in errors and progress bars which rows they are; without ``keep`` nothing
        decoded stays in memory, for samples that are read once.
        """

    @abstractmethod
    def answer(self, model: nn.Module, batch: Mapping[str, Tensor], count: int) -> list[Answer]:
        """At most ``count`` candidates for each sample of a batch on the model's device."""

    def answer_whole(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[Answer]:
        """What the model says where nobody asks for a number of candidates: the best one."""
        return self.answer(model, batch, 1)

    def fit_to(self, config: Any) -> None:
        """Make ``answer`` fit a saved model. Raises UserError for one that it cannot fit."""
