"""Training behind a stored frozen prefix: the same numbers, and only where that is proven."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from live_step import make_batch, make_model
from network_zoo import NETWORKS as ZOO
from probed_models import Samples, collate, other_model, probe_of
from tiny_runs import overrides
from torch import Tensor, nn

from hfbench import disk
from hfbench.config import NetworkConfig, load_config, parse_strategy
from hfbench.models.network import ScratchNetwork
from hfbench.models.structure import find_structure
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.strategies import apply_strategy
from hfbench.training.prefix import cache, store
from hfbench.training.prefix.cache import stored_prefix
from hfbench.training.prefix.cut import STORED, Cut, Place, find_place

pytestmark = pytest.mark.usefixtures("own_cache")

CHECKPOINTS = {"text": "tiny_bert", "image": "tiny_vit", "audio": "tiny_wav2vec2"}
SPLITS = {"text": "texts", "image": "images", "audio": "sounds"}


@pytest.fixture
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Trains one of the tiny checkpoints: ``trained("text", "head", "cache=off")``."""

    def train(kind: str, strategy: str, *more: str) -> RunResult:
        arguments = overrides(
            request.getfixturevalue(CHECKPOINTS[kind]),
            request.getfixturevalue(SPLITS[kind]),
            tmp_path / f"{kind}-{strategy}-{'-'.join(more)}",
            f"strategy={strategy}",
            *more,
        )
        return run(load_config(None, arguments, task=f"{kind}_classification"))

    return train


@pytest.mark.parametrize("strategy", ["head", "last_2", "lora:last_n=2"])
@pytest.mark.parametrize("kind", ["text", "image", "audio"])
def test_losses_are_equal_with_and_without_the_stored_prefix(
    kind: str, strategy: str, trained: Any
) -> None:
    stored, computed = trained(kind, strategy), trained(kind, strategy, "cache=off")
    assert computed.prefix is None
    assert stored.prefix is not None
    assert stored.prefix.computed_splits == 3
    losses = [[record.train_loss for record in r.history] for r in (stored, computed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    losses = [[r.validation["loss"] for r in result.history] for result in (stored, computed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert stored.test_metrics["loss"] == pytest.approx(computed.test_metrics["loss"], rel=1e-5)
    assert stored.test_metrics["accuracy"] == computed.test_metrics["accuracy"]
    # What was predicted is the step behind the prefix.
    assert stored.predicted is not None
    assert computed.predicted is not None
    assert stored.predicted.step_flops < computed.predicted.step_flops


def test_checkpointed_training_from_the_first_block_on_is_equal_too(trained: Any) -> None:
    """Wav2Vec2's convolutions are stored; the first block runs again in the backward pass."""
    more = ["training.gradient_checkpointing=true"]
    stored = trained("audio", "lora", *more)
    computed = trained("audio", "lora", *more, "cache=off")
    assert stored.prefix is not None
    assert stored.prefix.place == "blocks-0"
    losses = [[record.train_loss for record in r.history] for r in (stored, computed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_tokenizer_that_pads_on_the_left_is_turned_to_the_right(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is stored has no padding, so that on the left it would stand where the padding is."""
    checkpoint = shutil.copytree(tiny_bert, tmp_path / "left")
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    settings["padding_side"] = "left"
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    arguments = overrides(checkpoint, texts, tmp_path / "run", "strategy=last_2")
    result = run(load_config(None, arguments, task="text_classification"))
    assert result.prefix is not None
    assert "note: texts are padded on the right (the tokenizer: on the left)" in (
        capsys.readouterr().out
    )
    saved = json.loads((tmp_path / "run" / "model" / "tokenizer_config.json").read_text())
    assert saved["padding_side"] == "right"


def test_later_runs_read_what_earlier_ones_stored(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained("text", "last_2", "seed=1")
    other_seed = trained("text", "last_2", "seed=2")
    assert other_seed.prefix.computed_splits == 0
    same_place = trained("text", "lora:last_n=2")
    assert same_place.prefix.computed_splits == 0

    continued = []
    earlier = cache._Prefix._earlier

    def spy(self: Any, *arguments: Any) -> Any:
        found = earlier(self, *arguments)
        continued.append(found and found[0].place)
        return found

    monkeypatch.setattr(cache._Prefix, "_earlier", spy)
    deeper = trained("text", "last_1")
    assert continued == [Place(1)] * 3  # of three blocks, last_2 left the first one frozen
    uncached = trained("text", "last_1", "cache=off")
    assert [r.train_loss for r in deeper.history] == pytest.approx(
        [r.train_loss for r in uncached.history], rel=1e-6
    )
    assert first.prefix.size_bytes == deeper.prefix.size_bytes


def test_nothing_is_stored_where_it_would_not_help(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained("text", "full").prefix is None
    assert trained("text", "last_1", "training.epochs=1").prefix is None
    assert "this training reads most samples only once" in capsys.readouterr().out
    assert trained("text", "lora").prefix is None
    assert "it is 0% of the forward pass" in capsys.readouterr().out
    assert not store.entries_folder().exists()
    always = trained("text", "last_1", "training.epochs=1", "cache=always")
    assert always.prefix is not None


def test_a_full_disk_turns_it_off_and_the_run_goes_on(
    trained: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Any, indices: Any, rows: Any, lengths: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.RowWriter, "add", full)
    result = trained("text", "last_1")
    assert result.status == "succeeded"
    assert result.prefix is None
    assert "cannot be stored: " in (said := capsys.readouterr().out)
    assert "No space left on device" in said
    assert list(store.entries_folder().iterdir()) == []


def test_a_limit_that_is_too_small_turns_it_off(
    trained: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "LIMIT_BYTES", 1000)
    assert trained("text", "last_1").prefix is None
    assert "do not fit beside" in capsys.readouterr().out


# -- other models ------------------------------------------------------------------------------


def opened(model: nn.Module, batch: dict[str, Tensor], strategy: str) -> Any:
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy(strategy))
    probe = probe_of(model, batch)
    splits = {"train": probe.train}
    accelerator = Accelerator()
    return model, stored_prefix(
        model, structure, splits, probe, visits=100, accelerator=accelerator
    )


NETWORKS = [
    "distilbert",
    "gpt2",
    "deberta",  # its relative positions are normed before the first block and read in every one
    "deberta-with-convolution",
    "mpnet",  # so are these
    "timm",
    "wav2vec2",
]


@pytest.mark.parametrize(
    ("name", "strategy"),
    [*itertools.product(NETWORKS, ["head", "last_2"]), ("albert", "head")],  # has only one block
)
def test_other_architectures_give_their_own_predictions(name: str, strategy: str) -> None:
    batch = make_batch({"timm": "vit"}.get(name, name if name == "wav2vec2" else "bert"))
    model, prefix = opened(other_model(name), batch, strategy)
    model.eval()
    samples = Samples(batch)
    with torch.no_grad():
        expected = model(**collate([samples[i] for i in range(len(samples))])).logits
    with prefix as (splits, record), torch.no_grad():
        assert record is not None
        stored = splits["train"].read_batch(range(len(samples)), torch.device("cpu"))
        assert STORED in stored
        torch.testing.assert_close(model(**stored).logits, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # afterwards the model is as it was
        again = model(**collate([samples[i] for i in range(len(samples))])).logits
    assert torch.equal(again, expected)


def test_only_the_position_that_a_training_pooler_reads_is_stored() -> None:
    batch = make_batch("bert")
    model, prefix = opened(make_model("bert"), batch, "head")
    model.bert.pooler.requires_grad_(True)
    model.eval()
    with torch.no_grad():
        expected = model(**batch).logits
    with prefix as (splits, record), torch.no_grad():
        assert record.place == f"blocks-{model.config.num_hidden_layers}"
        stored = splits["train"].read_batch(range(len(batch["labels"])), torch.device("cpu"))
        assert stored[STORED].shape == (len(batch["labels"]), 1, model.config.hidden_size)
        torch.testing.assert_close(model(**stored).logits, expected, rtol=1e-4, atol=1e-5)


def test_gradients_behind_the_prefix_are_those_of_the_whole_model() -> None:
    batch = make_batch("bert")
    model, prefix = opened(make_model("bert"), batch, "last_2")
    samples = Samples(batch)

    def gradients(given: dict[str, Tensor]) -> list[Tensor]:
        model.eval()
        model.zero_grad()
        model(**given).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients(collate([samples[i] for i in range(len(samples))]))
    with prefix as (splits, record):
        assert record is not None
        found = gradients(splits["train"].read_batch(range(4), torch.device("cpu")))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_model_that_passes_more_than_its_hidden_states_is_computed_in_every_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Here the head also reads what the first block gives, past the others."""

    class Bypass(transformers.BertForSequenceClassification):
        def forward(self, **batch: Any) -> Any:  # type: ignore[override]
            first: list[Tensor] = []
            block = self.bert.encoder.layer[0]
            handle = block.register_forward_hook(lambda m, a, output: first.append(output))
            outputs = super().forward(**batch)
            handle.remove()
            outputs.logits = outputs.logits + first[-1].abs().mean()
            return outputs

    model = Bypass(make_model("bert").config)
    _, prefix = opened(model, make_batch("bert"), "last_2")
    with prefix as (_, record):
        assert record is None
    assert "Bypass gives other predictions without it" in capsys.readouterr().out
    assert list(store.entries_folder().glob("*")) == []  # known before anything was computed


def test_what_differs_only_in_gradients_is_computed_in_every_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A fresh gate of 0 hides what it multiplies, until it has trained."""

    class Gated(transformers.BertForSequenceClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, **batch: Any) -> Any:  # type: ignore[override]
            first: list[Tensor] = []
            block = self.bert.encoder.layer[0]
            handle = block.register_forward_hook(lambda m, a, output: first.append(output))
            outputs = super().forward(**batch)
            handle.remove()
            outputs.loss = outputs.loss + self.gate * first[-1].abs().mean()
            return outputs

    _, prefix = opened(Gated(make_model("bert").config), make_batch("bert"), "last_2")
    with prefix as (_, record):
        assert record is None
    assert "Gated gives other gradients of gate without it" in capsys.readouterr().out


def test_a_layer_that_trains_and_runs_inside_the_prefix_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = other_model("deberta-with-convolution")
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy("last_1"))
    model.deberta.encoder.conv.requires_grad_(True)
    probe = probe_of(model, make_batch("bert"))
    splits: Any = {"train": probe.train}
    with stored_prefix(model, structure, splits, probe, visits=100, accelerator=Accelerator()) as (
        _,
        record,
    ):
        assert record is None
    assert "deberta.encoder.conv.conv, which trains, runs before it ends" in (
        capsys.readouterr().out
    )


FAILING = {
    "finding": (Cut, "find_embeddings"),
    "proving": (cache, "disagreement"),
    "comparing": (cache, "difference"),
}


@pytest.mark.parametrize("where", FAILING)
def test_processes_agree_before_one_of_them_declines(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the others wait for its vote."""
    votes = []

    def fail(*arguments: Any) -> None:
        raise RuntimeError("the kernel failed")

    def vote(accelerator: Accelerator, yes: bool) -> bool:
        votes.append(yes)
        return yes

    monkeypatch.setattr(*FAILING[where], fail)
    monkeypatch.setattr(cache, "all_agree", vote)
    _, prefix = opened(make_model("bert"), make_batch("bert"), "last_2")
    with prefix as (_, record):
        assert record is None
        assert votes[-1] is False
    assert "without it the model fails: the kernel failed" in capsys.readouterr().out


@pytest.mark.parametrize("where", FAILING)
def test_exhausted_memory_is_no_reason_to_go_on(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(*FAILING[where], fail)
    _, prefix = opened(make_model("bert"), make_batch("bert"), "last_2")
    with pytest.raises(torch.OutOfMemoryError), prefix:
        pass


def test_where_another_process_declines_this_one_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "all_agree", lambda accelerator, yes: False)
    _, prefix = opened(make_model("bert"), make_batch("bert"), "last_2")
    with prefix as (_, record):
        assert record is None
    assert "another process could not leave it out" in capsys.readouterr().out


def test_an_error_of_the_training_does_not_come_from_a_declined_prefix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "make_room", lambda size: "No space left on device")
    _, prefix = opened(make_model("bert"), make_batch("bert"), "last_2")

    def train() -> None:
        with prefix as (_, record):
            assert record is None
            raise ArithmeticError("the loss is not finite")

    with pytest.raises(ArithmeticError) as raised:
        train()
    assert raised.value.__context__ is None
    assert not disk.is_full(raised.value)


def test_a_search_for_what_the_head_reads_leaves_no_hook_where_it_fails() -> None:
    model = make_model("bert")
    cut = Cut(model, find_structure(model), Place(4, backbone=True))
    before = dict(model.bert._forward_hooks)
    with pytest.raises(ValueError, match="input_ids"):
        cut.find_leaf({"attention_mask": torch.ones(1, 1)}, bool)
    assert model.bert._forward_hooks == before


@pytest.fixture
def bf16() -> Iterator[Accelerator]:
    AcceleratorState._reset_state()
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state()


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_in_bfloat16_what_is_stored_is_off_by_no_more_than_bfloat16_is(
    name: str, bf16: Accelerator
) -> None:
    batch = make_batch("bert")
    model = other_model(name)
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy("last_1"))
    probe = probe_of(model, batch)
    splits: Any = {"train": probe.train}
    indices = range(len(batch["labels"]))
    with torch.no_grad():
        exact = probe.predictions(probe.batch_of(indices))
        with bf16.autocast():
            whole = probe.predictions(probe.batch_of(indices))
    with (
        stored_prefix(model, structure, splits, probe, visits=100, accelerator=bf16) as (
            opened_splits,
            record,
        ),
        torch.no_grad(),
        bf16.autocast(),
    ):
        assert record is not None
        stored: Any = opened_splits["train"]
        found = probe.predictions(stored.read_batch(indices, torch.device("cpu")))
    assert (found - exact).abs().max() <= 3 * (whole - exact).abs().max() + 0.01 * exact.abs().max()


def test_rows_that_are_off_by_more_than_rounding_are_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = store.Rows.read

    def shifted(self: store.Rows, indices: Any) -> Tensor:
        rows = read(self, indices)
        return rows + 0.1 * torch.linspace(-1, 1, rows.shape[-1])

    monkeypatch.setattr(store.Rows, "read", shifted)
    _, prefix = opened(make_model("bert"), make_batch("bert"), "last_2")
    with prefix as (_, record):
        assert record is None
    assert "with what is stored predictions are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("full", None),
        ("bitfit", None),
        ("first_2", Place(0)),
        ("last_1", Place(3)),
        ("blocks:1+3", Place(1)),
        ("lora", Place(0)),
        ("lora:last_n=1", Place(3)),
        ("head", Place(4, backbone=True)),
    ],
)
def test_where_the_prefix_ends(strategy: str, expected: Place | None) -> None:
    model = make_model("bert")
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy(strategy))
    assert find_place(model, structure) == expected


def test_nothing_comes_before_the_first_layer_of_a_perceptron() -> None:
    model = ScratchNetwork(NetworkConfig(), height=8, width=8, label_names=("a", "b"))
    assert find_place(model, find_structure(model)) is None


@pytest.mark.parametrize(("strategy", "place"), [("last_2", None), ("head", "backbone")])
def test_a_hierarchical_network_is_left_out_as_a_whole_or_not_at_all(
    strategy: str, place: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a Swin runs beside its blocks, nobody knows from the tree alone."""
    torch.manual_seed(0)
    model = ZOO["swin"]()
    structure = find_structure(model)
    new = ["classifier.weight", "classifier.bias"]
    model = apply_strategy(model, structure, parse_strategy(strategy), new)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = {"pixel_values": images, "labels": torch.zeros(6, dtype=torch.int64)}
    probe = probe_of(model, batch)
    splits: Any = {"train": probe.train}
    with stored_prefix(model, structure, splits, probe, visits=1000, accelerator=Accelerator()) as (
        _,
        record,
    ):
        assert (record and record.place) == place
    declined = "computed in every step; it would end inside a hierarchical network"
    assert (declined in capsys.readouterr().out) == (place is None)
