"""Train behind a frozen prefix whose output is computed once for each sample.

Used where it saves work, only after it was seen to give what the whole model gives, and said
aloud either way.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hfbench.models.calls import record_calls
from hfbench.models.structure import Structure, canonical_name
from hfbench.results import PrefixRecord
from hfbench.training.batching import SampleSource
from hfbench.training.company import told_by_main
from hfbench.training.prefix import store
from hfbench.training.prefix.cut import Cut, Place, find_place
from hfbench.training.prefix.key import PrefixKeys, received
from hfbench.training.prefix.proof import OTHER_SIZES, Whole, disagreement, whole_model
from hfbench.training.prefix.samples import DigestedSource, StoredSamples
from hfbench.training.prefix.stand_ins import CutError, trying
from hfbench.training.prefix.writing import all_agree, write_entry
from hfbench.training.probe import Probe, difference

Splits = Mapping[str, SampleSource]

SLACK = 0.1  # by which share of the longest the samples of a batch may differ, to fill batches
LEAST_SHARE = 0.05  # of the forward pass: a prefix that costs less is not worth reading
LEAST_VISITS = 1.5  # of every training sample: storing costs one
ROUNDINGS = 3  # so many times what the run's precision changes may what is stored be off,
# and one rounding of it
ROUNDING = {
    "no": OTHER_SIZES,
    "fp16": torch.finfo(torch.float16).eps,
    "bf16": torch.finfo(torch.bfloat16).eps,
}
FAILS = "without it the model fails"


class _DeclinedError(Exception):
    """Nothing is stored: the message says why."""


@contextmanager
def stored_prefix(
    model: nn.Module,
    structure: Structure,
    splits: Splits,
    probe: Probe,
    *,
    visits: int,
    accelerator: Accelerator,
    always: bool = False,
) -> Iterator[tuple[Splits, PrefixRecord | None]]:
    """Within, the model leaves its frozen prefix out for batches of the splits that are given.

    Args:
        probe: samples of ``train`` that the two ways are compared on.
        splits: ``train`` and others; samples must be the same on every access.
        visits: how many training samples the training reads, repeated ones too.
        always: also where this training alone would not repay it, because others follow.

    Yields the splits with what is stored, or those given, and what was done, for the result.
    What is stored serves every later run with the same prefix, data and precision.
    """
    with ExitStack() as stack:
        place = find_place(model, structure)
        if place is None:
            yield splits, None
            return
        prefix = _Prefix(model, structure, splits, probe, accelerator)
        stored, record, done = splits, None, ""
        try:
            with torch.no_grad(), accelerator.autocast():
                stored, record = prefix.open(place, stack, visits=visits, always=always)
            done = _describe(record, structure)
        except _DeclinedError as reason:
            done = f"computed in every step; {reason}"
        # Not in the handler: what the training raises has nothing to do with the reason.
        accelerator.print(f"frozen prefix: {done}")
        yield stored, record


class _Prefix:
    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        splits: Splits,
        probe: Probe,
        accelerator: Accelerator,
    ) -> None:
        self.model, self.structure = model, structure
        self.splits, self.probe, self.accelerator = splits, probe, accelerator
        self.reading = probe.reading
        self.lengths = {name: self.reading.lengths(samples) for name, samples in splits.items()}
        self.ragged = self.lengths["train"] is not None

    def open(
        self, place: Place, stack: ExitStack, *, visits: int, always: bool
    ) -> tuple[Splits, PrefixRecord]:
        """Find or compute what is stored and, once it is proven, put it in the model's way."""
        started = time.perf_counter()
        if len(self.structure.block_lists) > 1 and place.blocks < self.structure.depth:
            raise _DeclinedError(
                "it would end inside a hierarchical network, where nobody knows what runs beside "
                "its blocks"
            )
        expected = self.probe.predictions(self.probe.batch)
        if not expected.any():
            raise _DeclinedError("all predictions are 0 before training, so none can be compared")
        self.calls = record_calls(self.model, lambda: self.model(**self.probe.batch))
        cut = self._cut(place)
        self._check_saving(cut)
        self._check_order(cut)
        keys = PrefixKeys(
            self.model,
            self.structure,
            self.calls,
            precision=self.accelerator.mixed_precision,
            device=self.accelerator.device.type,
            shapes=None if self.ragged else {k: v.shape[1:] for k, v in self.probe.batch.items()},
        )
        digests = {name: self._digest(samples) for name, samples in self.splits.items()}
        entries = {
            name: self._private_key(stack) if digest is None else keys.key(cut, digest)
            for name, digest in digests.items()
        }
        missing = self._missing(entries)
        passes = visits / len(self.splits["train"])
        if "train" in missing and not always and passes < LEAST_VISITS:
            raise _DeclinedError("this training reads most samples only once")
        whole = self._prove(cut)
        self._make_room(cut, missing)
        for name in missing:
            digest = digests[name]
            earlier = None if digest is None else self._earlier(keys, cut, digest, whole)
            self._compute(name, entries[name], cut, earlier)
        stored = {name: self._open(name, key, stack) for name, key in entries.items()}
        stack.enter_context(cut.installed())
        self._compare(stored["train"], expected, whole)
        return stored, PrefixRecord(
            place=str(cut.place),
            seconds=time.perf_counter() - started,
            size_bytes=sum(samples.rows.size_bytes for samples in stored.values()),
            computed_splits=len(missing),
            saved_seconds=passes * stored["train"].rows.seconds,
        )

    def _cut(self, place: Place) -> Cut:
        """Where the prefix ends."""
        cut, problem = Cut(self.model, self.structure, place), None
        try:
            with trying(FAILS):
                if place.backbone:
                    try:
                        cut.find_leaf(self.probe.batch, self.probe.is_finite)
                    except CutError:  # behind the last block one tensor goes on in any case
                        cut = Cut(self.model, self.structure, Place(place.blocks))
                if not cut.place.backbone and cut.place.blocks == self.structure.depth:
                    cut.find_positions(self.probe.batch, self.probe.is_finite)
                cut.find_embeddings(self.probe.batch, self.probe.is_finite, self.calls)
                with FlopCounterMode(display=False) as self.flops:
                    self.row = cut.output(self.probe.batch_of(self.probe.indices[:1]))[0]
                self.positions = cut.length
        except CutError as error:
            problem = str(error)
        self._agree(problem)
        return cut

    def _agree(self, problem: str | None) -> None:
        """Decline on all processes where one has a problem; all must call this together."""
        if not all_agree(self.accelerator, problem is None):
            raise _DeclinedError(problem or "another process could not leave it out")

    def _check_saving(self, cut: Cut) -> None:
        """Decline where leaving the prefix out would not save much."""
        with FlopCounterMode(display=False) as of_all:
            self.model(**self.probe.batch_of(self.probe.indices[:1]))
        share = self.flops.get_total_flops() / of_all.get_total_flops()
        if share < LEAST_SHARE:
            raise _DeclinedError(f"it is {share:.0%} of the forward pass")

    def _digest(self, samples: SampleSource) -> str | None:
        """Of what the model is given of a split; None where only reading all of it would tell."""
        contents = samples.digest() if isinstance(samples, DigestedSource) else None
        if contents is None:
            return None
        return f"{contents} {received(samples, self.reading.collate)}"

    def _missing(self, entries: Mapping[str, str]) -> list[str]:
        """The splits that are not stored yet, as the main process sees it."""
        missing = []
        if self.accelerator.is_main_process:
            missing = [name for name, key in entries.items() if not store.is_whole(key)]
        return told_by_main(missing)

    def _check_order(self, cut: Cut) -> None:
        """Decline where something that trains runs before the prefix ends."""
        calls, end = self.calls, cut.end(self.calls)
        for name, parameter in self.model.named_parameters():
            owner = calls.owner(canonical_name(name))
            around = owner in ("", *self.structure.containers)  # of a parameter without a module
            if parameter.requires_grad and not around and not calls.runs_from(owner, end):
                raise _DeclinedError(f"{owner}, which trains, runs before it ends")

    def _earlier(
        self, keys: PrefixKeys, cut: Cut, digest: str, whole: Whole
    ) -> tuple[Cut, str] | None:
        """A shorter prefix of this model whose output is stored already: the longest one."""
        longest = cut.place.blocks if cut.place.backbone else cut.place.blocks - 1
        for blocks in range(longest, -1, -1):
            shorter = Cut(self.model, self.structure, Place(blocks))
            key = keys.key(shorter, digest)
            if not self._missing({"earlier": key}) and self._is_proven(shorter, whole):
                return shorter, key
        return None

    def _is_proven(self, shorter: Cut, whole: Whole) -> bool:
        """Whether a model that goes on from a shorter prefix is the same, as it is from its own."""
        try:
            with trying(FAILS):
                shorter.find_embeddings(self.probe.batch, self.probe.is_finite, self.calls)
                problem = disagreement(shorter, self.probe, whole, self._rows_of_probe(shorter))
        except CutError as error:
            problem = str(error)
        return all_agree(self.accelerator, problem is None)

    def _compute(self, name: str, key: str, cut: Cut, earlier: tuple[Cut, str] | None) -> None:
        samples = self.splits[name]
        with ExitStack() as stack:
            seconds_before = 0.0
            if earlier is not None:
                samples = opened = self._open(name, earlier[1], stack)
                seconds_before = opened.rows.seconds
                stack.enter_context(earlier[0].installed())
            problem = write_entry(
                key,
                cut,
                samples,
                self.reading.collate,
                batch_size=self.reading.batch_size,
                lengths=self.lengths[name],
                slack=SLACK if self._may_differ() else 0.0,
                accelerator=self.accelerator,
                title=name,
                seconds_before=seconds_before,
            )
        if problem is not None:
            raise _DeclinedError(f"it cannot be stored: {problem}")

    def _may_differ(self) -> bool:
        """Whether a sample has as many positions as tokens, so that padding is told apart."""
        lengths = self.lengths["train"]
        if self.reading.equal_lengths:
            return False
        return lengths is not None and self.positions == lengths[self.probe.indices[0]]

    def _open(self, name: str, key: str, stack: ExitStack) -> StoredSamples:
        """The split with what is stored, open for as long as ``stack``."""
        rows = store.find(key)
        if not all_agree(self.accelerator, rows is not None):
            raise _DeclinedError(f"{key} was deleted meanwhile from {store.entries_folder()}")
        assert rows is not None
        stack.callback(rows.close)
        return StoredSamples(self.splits[name], rows, self.reading.collate, ragged=self.ragged)

    def _make_room(self, cut: Cut, missing: Sequence[str]) -> None:
        """Decline where the missing splits would not fit beside what else is kept."""
        of_train = self.lengths["train"]
        needed = 0.0
        for name in missing:
            lengths, samples = self.lengths[name], float(len(self.splits[name]))
            if cut.rows_have_length and lengths is not None and of_train is not None:
                samples = (
                    sum(lengths) / of_train[self.probe.indices[0]]
                )  # as long as the measured one
            needed += self.row.nbytes * samples
        problem = store.make_room(int(needed)) if self.accelerator.is_main_process else None
        problem = told_by_main(problem)
        if problem is not None:
            raise _DeclinedError(f"its output cannot be stored: {problem}")

    def _rows_of_probe(self, cut: Cut) -> list[int] | None:
        """How many positions of each probed sample are stored, where its padding is not."""
        lengths = self.lengths["train"]
        if lengths is None or not (self._may_differ() and cut.rows_have_length):
            return None
        return [lengths[index] for index in self.probe.indices]

    def _prove(self, cut: Cut) -> Whole:
        """Decline where the model computes anything else behind the prefix, before it is stored."""
        whole: Whole | None = None
        try:
            with trying(FAILS):
                whole = whole_model(self.probe)
                problem = disagreement(cut, self.probe, whole, self._rows_of_probe(cut))
            if problem is not None:
                problem = f"{type(self.model).__name__} gives {problem}"
        except CutError as error:
            problem = str(error)
        self._agree(problem)
        assert whole is not None
        return whole

    def _compare(self, stored: StoredSamples, expected: Tensor, whole: Whole) -> None:
        """Decline where what is stored is off by more than the run's precision is."""
        precision = self.accelerator.mixed_precision
        batch = stored.read_batch(self.probe.indices, self.accelerator.device)
        problem = None
        try:
            with trying(FAILS):
                own = difference(expected, whole.predictions)
                off = difference(self.probe.predictions(batch), whole.predictions)
            if not off <= ROUNDINGS * own + ROUNDING[precision]:
                problem = (
                    f"with what is stored predictions are {off:.2g} of the largest off, where "
                    f"{precision} itself makes {own:.2g}"
                )
        except CutError as error:
            problem = str(error)
        self._agree(problem)

    def _private_key(self, stack: ExitStack) -> str:
        """For a split whose contents nobody knows before they are read: deleted at the end."""
        key = told_by_main(uuid4().hex)
        if self.accelerator.is_main_process:
            stack.callback(shutil.rmtree, store.entries_folder() / key, ignore_errors=True)
        return key


def _describe(record: PrefixRecord, structure: Structure) -> str:
    done = f"computed in {record.seconds:.1f} s" if record.computed_splits else "already stored"
    place = {"backbone": "the whole backbone"}.get(
        record.place, f"{record.place.removeprefix('blocks-')} of {structure.depth} blocks"
    )
    return (
        f"{place}, {done} ({record.size_bytes / 2**20:.1f} MiB); the training "
        f"leaves it out, about {record.saved_seconds:.1f} s"
    )
