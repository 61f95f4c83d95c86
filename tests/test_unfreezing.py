"""Gradual unfreezing and layer-wise learning-rate decay: what trains when, and how fast."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from accelerate import Accelerator
from tiny_runs import overrides
from torch import nn

from hfbench.config import TrainingConfig, load_config, parse_strategy
from hfbench.errors import UserError
from hfbench.models.structure import Structure, find_structure
from hfbench.preparation import describe, make_accelerator, prepare
from hfbench.run import run
from hfbench.strategies import (
    apply_strategy,
    check_epochs,
    layer_decay,
    set_training_mode,
    unfreezing,
)
from hfbench.tasks import make_task
from hfbench.training.fit import fit
from hfbench.training.objective import FitResult, Objective
from hfbench.training.optimizer import LearningRates, build_optimizer

# ---- gradual unfreezing


def samples(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"input_ids": torch.randint(2, 50, (8,), generator=generator), "labels": index % 3}
        for index in range(count)
    ]


def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.stack([item["input_ids"] for item in items]),
        "labels": torch.tensor([item["labels"] for item in items]),
    }


def gradual_bert(strategy: str) -> tuple[nn.Module, Structure]:
    """Three blocks, dropout of 0.1."""
    torch.manual_seed(0)
    model = tiny_models.bert()
    structure = find_structure(model)
    return apply_strategy(model, structure, parse_strategy(strategy)), structure


def train(
    model: nn.Module,
    structure: Structure,
    strategy: str,
    data: Any,
    folder: Path,
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None,
    new_parameters: tuple[str, ...] = (),
    **options: Any,
) -> FitResult:
    objective = Objective(
        collate=collate,
        loss_units=lambda batch: len(batch["labels"]),
        evaluate=evaluate,
        train_mode=lambda model: set_training_mode(model, structure),
        trains=unfreezing(structure, parse_strategy(strategy), new_parameters),
    )
    return fit(
        model,
        data,
        objective,
        config=TrainingConfig(batch_size=4, **options),
        rates=LearningRates(rest=1e-3, head=1e-3),
        accelerator=Accelerator(cpu=True),
        folder=folder,
        owner="run",
        seed=7,
    )


@pytest.mark.parametrize(
    ("strategy", "parts_by_epoch"),
    [
        (
            "gradual",
            [
                {"head", "pooler"},
                {"head", "pooler", "block 2"},
                {"head", "pooler", "block 2", "block 1"},
                {"head", "pooler", "block 2", "block 1", "block 0"},
                {"head", "pooler", "block 2", "block 1", "block 0", "embeddings"},
            ],
        ),
        (
            "gradual:every=2",
            [
                {"head", "pooler"},
                {"head", "pooler"},
                {"head", "pooler", "block 2"},
                {"head", "pooler", "block 2"},
                {"head", "pooler", "block 2", "block 1"},
            ],
        ),
    ],
)
def test_each_epoch_changes_what_it_should(
    strategy: str, parts_by_epoch: list[set[str]], tmp_path: Path
) -> None:
    model, structure = gradual_bert(strategy)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    changed: list[set[str]] = []

    def compare(model: nn.Module) -> dict[str, Any]:
        now = dict(model.named_parameters())
        parts = {structure.part_of(n) for n in now if not torch.equal(now[n], before[n])}
        changed.append(parts)
        before.update({n: p.detach().clone() for n, p in now.items()})
        assert all(parameter.requires_grad for parameter in now.values())
        return {"loss": 0.0}

    train(model, structure, strategy, samples(12), tmp_path, compare, epochs=5)
    assert changed == parts_by_epoch


def test_what_waits_is_in_eval_mode_and_outside_the_graph(tmp_path: Path) -> None:
    model, structure = gradual_bert("gradual")
    seen: list[tuple[bool, bool]] = []
    block = model.get_submodule(structure.blocks[1])
    block.register_forward_hook(
        lambda module, args, output: seen.append((module.training, output.requires_grad))
    )
    train(model, structure, "gradual", samples(4), tmp_path, epochs=3)
    assert seen == [(False, False), (False, False), (True, True)]


def test_new_parameters_train_from_the_first_epoch_on(tmp_path: Path) -> None:
    new = ("bert.embeddings.position_embeddings.weight", "bert.encoder.layer.0.output.dense.bias")
    model, structure = gradual_bert("gradual")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, structure, "gradual", samples(8), tmp_path, new_parameters=new, epochs=1)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    behind = {n for n in before if structure.part_of(n) in ("head", "pooler")}
    assert changed == behind | set(new)


class _InterruptedError(RuntimeError):
    pass


class _StopsAfter(list[dict[str, Any]]):
    """Data that fail after a number of reads, as a machine that goes down would."""

    limit = 10**9

    def __getitem__(self, index: Any) -> Any:
        self.limit -= 1
        if self.limit < 0:
            raise _InterruptedError
        return super().__getitem__(index)


@pytest.mark.parametrize("reads", [2 * 20 + 13, 3 * 20 + 5])  # middle of epoch 3, start of epoch 4
def test_resumed_gradual_unfreezing_is_bit_equal(reads: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 5, "save_steps": 2}
    through, structure = gradual_bert("gradual")
    torch.manual_seed(3)
    expected = train(through, structure, "gradual", samples(20), tmp_path / "through", **options)
    broken, _ = gradual_bert("gradual")
    torch.manual_seed(3)
    data = _StopsAfter(samples(20))
    data.limit = reads
    with pytest.raises(_InterruptedError):
        train(broken, structure, "gradual", data, tmp_path / "broken", **options)
    torch.manual_seed(99)
    resumed, _ = gradual_bert("gradual")
    actual = train(resumed, structure, "gradual", samples(20), tmp_path / "broken", **options)
    assert actual.step_losses == expected.step_losses
    assert len(expected.step_losses) == 5 * 5
    for a, b in zip(resumed.parameters(), through.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["text", "image", "audio"])
def test_a_gradual_run_says_what_it_unfreezes_and_saves_a_whole_model(
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = {"text": "tiny_bert", "image": "tiny_vit", "audio": "tiny_wav2vec2"}[kind]
    data = {"text": "texts", "image": "images", "audio": "sounds"}[kind]
    sources = [request.getfixturevalue(name) for name in (checkpoint, data)]
    few = ["training.epochs=5", "data.max_train_samples=8"]  # one step each, for three blocks
    arguments = overrides(*sources, tmp_path / "run", "strategy=gradual", *few)
    config = load_config(None, arguments, task=f"{kind}_classification")
    result = run(config)
    assert result.status == "succeeded"  # loaded again and compared
    assert result.parameters is not None
    assert result.parameters.trainable == result.parameters.total
    assert result.prefix is None
    assert (
        "unfreezing: the head from epoch 1, block 2 from epoch 2, block 0 from epoch 4, the "
        "embeddings from epoch 5\n" in capsys.readouterr().out
    )


def test_too_few_epochs_are_refused() -> None:
    structure = find_structure(tiny_models.bert())
    check_epochs(structure, parse_strategy("gradual"), 5)
    check_epochs(structure, parse_strategy("full"), 1)
    with pytest.raises(UserError, match=r"last 2 of 3 blocks, .*training\.epochs=5, or .*last_2"):
        check_epochs(structure, parse_strategy("gradual"), 3)
    with pytest.raises(UserError, match=r"training\.epochs=9"):
        check_epochs(structure, parse_strategy("gradual:every=2"), 8)


def test_every_belongs_to_gradual() -> None:
    with pytest.raises(UserError, match=r"strategy\.every=2 belongs to gradual, not to full"):
        parse_strategy("full:every=2")
    assert parse_strategy("gradual:every=2").label == "gradual:every=2"


# ---- layer-wise decay


def rates_by_name(model: nn.Module, structure: Structure, decay: float | None) -> dict[str, float]:
    optimizer = build_optimizer(
        model,
        rates=LearningRates(rest=0.8, head=3.0),
        config=TrainingConfig(),
        is_head=lambda name: structure.part_of(name) == "head",
        rate_factor=layer_decay(structure, decay),
    )
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {n: rates[id(p)] for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("strategy", ["full", "bitfit"])
def test_each_block_has_half_the_rate_of_the_next(strategy: str) -> None:
    """0.8 behind three blocks, then 0.4, 0.2, 0.1 and 0.05 for the embeddings."""
    model, structure = gradual_bert(strategy)
    expected = {"head": 3.0, "pooler": 0.8, "block 2": 0.4, "block 1": 0.2, "block 0": 0.1}
    expected["embeddings"] = 0.05
    found = rates_by_name(model, structure, 0.5)
    assert {structure.part_of(name) for name in found} == set(expected)
    for name, rate in found.items():
        assert rate == pytest.approx(expected[structure.part_of(name)]), name


def test_an_adapter_has_the_rate_of_its_block() -> None:
    model, structure = gradual_bert("lora:r=2")
    found = rates_by_name(model, structure, 0.5)
    assert len(found) == 3 * 2 * 2 + 2  # A and B of query and value, the head
    for index, rate in enumerate((0.1, 0.2, 0.4)):
        inside = [r for n, r in found.items() if f"layer.{index}." in n]
        assert inside == pytest.approx([rate] * 4)


def test_without_decay_all_rates_are_alike() -> None:
    model, structure = gradual_bert("full")
    assert set(rates_by_name(model, structure, None).values()) == {0.8, 3.0}


def test_the_rates_are_printed_and_used(tiny_bert: Path, texts: Path, tmp_path: Path) -> None:
    arguments = overrides(tiny_bert, texts, tmp_path, "training.layerwise_lr_decay=0.5")
    config = load_config(None, arguments, task="text_classification")
    prepared = prepare(config, make_task(config), make_accelerator(config))
    assert (
        "learning rate 0.001 = 0.001 × 1, head 0.001\n"
        "layer-wise decay 0.5: embeddings 6.25e-05, block 0 0.000125, block 1 0.00025, "
        "block 2 0.0005\n" in describe(config, prepared)
    )
    slow = run(config)
    other = [*arguments, "training.layerwise_lr_decay=1", f"output_dir={tmp_path / 'other'}"]
    fast = run(load_config(None, other, task="text_classification"))
    assert slow.history[0].train_loss != fast.history[0].train_loss


@pytest.mark.parametrize("value", ["0", "1.5", "-0.5"])
def test_decay_is_a_factor(value: str) -> None:
    with pytest.raises(UserError, match=r"training\.layerwise_lr_decay=.* must be in \(0, 1\]"):
        load_config(None, [f"training.layerwise_lr_decay={value}"])
