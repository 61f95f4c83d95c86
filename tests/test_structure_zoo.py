"""Over many architectures the parts are right, also in the order in which they run, or refused."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from network_zoo import NETWORKS, inputs_of
from torch import nn

from hfbench.config import parse_strategy
from hfbench.errors import UserError
from hfbench.models.module_tree import is_attention
from hfbench.models.structure import find_structure
from hfbench.parameters import count_parameters
from hfbench.strategies import apply_strategy, set_training_mode

EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "structures.yaml").read_text(encoding="utf-8")
)
UNDERSTOOD = [name for name in NETWORKS if "refused" not in EXPECTED[name]]
HYBRID = {"lfm2": 1, "timm visformer": 8}  # the blocks that have attention, where not all have


@functools.cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]()


def test_every_network_of_the_zoo_has_an_expectation() -> None:
    assert list(NETWORKS) == list(EXPECTED)
    assert len(UNDERSTOOD) > 60


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_parts(name: str) -> None:
    expected, structure = EXPECTED[name], find_structure(network(name))
    assert structure.backbone == expected.get("backbone", "")
    own = f"{structure.backbone}." if structure.backbone else ""
    blocks = [
        f"{own}{container}.{index}"
        for container, count in expected["lists"].items()
        for index in range(count)
    ]
    assert list(structure.blocks) == blocks
    for part in ("embeddings", "final", "pooler"):
        assert list(getattr(structure, part)) == _names(own, expected.get(part, "")), part
    assert list(structure.head) == _names("", expected.get("head", ""))
    between = {i: list(names) for i, names in enumerate(structure.between) if names}
    found = {i: _names(own, names) for i, names in expected.get("between", {}).items()}
    assert between == found


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_every_block_of_a_network_with_attention_has_some(name: str) -> None:
    model = network(name)
    attends = [
        any(is_attention(n, m) for n, m in model.get_submodule(block).named_modules())
        for block in find_structure(model).blocks
    ]
    assert sum(attends) in (0, HYBRID.get(name, len(attends)))


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_the_parts_run_in_their_order(name: str) -> None:
    model = network(name)
    structure, calls = find_structure(model), _calls(model)

    def places(names: Sequence[str]) -> list[int]:
        """Of all calls of these modules, or of modules inside (those of a list)."""
        return [
            place
            for place, called in enumerate(calls)
            if any(called == name or called.startswith(f"{name}.") for name in names)
        ]

    blocks = [places([block]) for block in structure.blocks]
    assert all(blocks), "a block never runs"
    starts = [block[0] for block in blocks]
    assert starts == sorted(starts)
    embeddings, final = places(structure.embeddings), places(structure.final)
    assert not embeddings or embeddings[0] < starts[0]
    assert not final or final[0] > blocks[-1][-1]
    for index, names in enumerate(structure.between):
        for one in names:
            behind = places([one])
            assert not behind or starts[index] < behind[0] <= behind[-1] < starts[index + 1], one


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in UNDERSTOOD])
def test_what_is_not_understood_is_refused_with_its_tree(name: str) -> None:
    with pytest.raises(UserError) as caught:
        find_structure(network(name))
    said = str(caught.value)
    assert f"is not understood: {EXPECTED[name]['refused']}" in said
    assert f"Its module tree:\n{type(network(name)).__name__}" in said


def test_the_last_two_blocks_of_a_swin_are_two_blocks_and_not_two_stages() -> None:
    """By hand, with C numbers a position, 2 heads, windows of 4 × 4 and an MLP of 4 C."""
    model = NETWORKS["swin"]()
    structure = find_structure(model)
    apply_strategy(model, structure, parse_strategy("last_2"), ["classifier.weight"])
    c = 16  # in the second stage
    attention = 4 * (c * c + c) + 2 * (2 * 4 - 1) ** 2  # q, k, v, output; relative positions
    block = attention + 2 * 2 * c + (c * 4 * c + 4 * c) + (4 * c * c + c)
    report = count_parameters(model, structure)
    assert report.trainable == 2 * block + c * 2 + 2  # and a classifier of two labels
    rows = {row.name: row for row in report.by_depth}
    merging = 2 * 4 * 8 + 4 * 8 * 2 * 8  # the norm of four neighbours, and their product
    assert rows["block 1"].total - rows["block 0"].total == merging
    assert [rows[f"block {i}"].trainable for i in range(5)] == [0, 0, 0, block, block]


def test_the_last_blocks_of_a_timm_resnet_cross_its_stages() -> None:
    """By hand: ResNet-18's blocks are two convolutions of 3 × 3 with batch norms."""
    model = NETWORKS["timm resnet18"]()
    structure = find_structure(model)
    assert structure.depth == 8
    apply_strategy(model, structure, parse_strategy("last_3"), ["fc.weight", "fc.bias"])
    of_256 = 2 * (9 * 256 * 256 + 2 * 256)
    first_of_512 = 9 * 256 * 512 + 9 * 512 * 512 + 256 * 512 + 3 * 2 * 512  # with a shortcut
    of_512 = 2 * (9 * 512 * 512 + 2 * 512)
    head = 512 * 3 + 3
    assert count_parameters(model, structure).trainable == of_256 + first_of_512 + of_512 + head


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["swin", "timm swin", "pvt_v2", "convnext", "mobilevit"])
def test_nothing_before_the_last_blocks_trains_or_drops(name: str, n: int) -> None:
    """What lies between frozen blocks is frozen and in eval mode, between trained ones not."""
    model = NETWORKS[name]()
    structure = find_structure(model)
    n = min(n, structure.depth)
    new = [k for k, _ in model.named_parameters() if k.rpartition(".")[0] in structure.head]
    apply_strategy(model, structure, parse_strategy(f"last_{n}"), new)
    set_training_mode(model, structure)
    first = structure.depth - n
    modules = dict(model.named_modules())
    for index in range(structure.depth):
        for one in structure.block_modules(index):
            trains = [parameter.requires_grad for parameter in modules[one].parameters()]
            assert set(trains) <= {index >= first}, one
            assert modules[one].training == (index >= first), one
    calls = _calls(model, train=True)
    start = calls.index(structure.blocks[first])
    for called in calls[:start]:
        module = modules[called]
        holds = any(block.startswith(f"{called}.") for block in structure.blocks) or not called
        assert holds or not module.training, called


def test_a_dropout_behind_a_trained_block_is_on() -> None:
    """Between blocks as behind the last one; before the first trained one it is off."""

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)) for _ in range(2)
            )
            self.dropout = nn.Dropout(0.5)

    class Network(nn.Module):
        base_model_prefix = ""

        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(Stage() for _ in range(3))

    model = Network()
    structure = find_structure(model)
    assert structure.block_lists == tuple(f"stages.{i}.blocks" for i in range(3))
    apply_strategy(model, structure, parse_strategy("last_3"))
    set_training_mode(model, structure)
    assert [stage.dropout.training for stage in model.stages] == [False, True, True]


def test_a_stack_of_feed_forwards_is_no_stack_of_blocks() -> None:
    """XLM's attentions and feed-forwards are lists of their own, whatever their number."""
    config = transformers.XLMConfig(vocab_size=60, emb_dim=16, n_layers=1, n_heads=2)
    with torch.device("meta"):
        model = transformers.XLMForSequenceClassification(config)
    with pytest.raises(UserError, match=r"in pieces in several lists \(transformer\.attentions, "):
        find_structure(model)


def _names(prefix: str, names: str) -> list[str]:
    return [f"{prefix}{name}" for name in names.split()]


def _calls(model: nn.Module, *, train: bool = False) -> list[str]:
    """Names of the modules that a forward pass calls, in their order."""
    calls: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: calls.append(name))
        for name, module in model.named_modules()
    ]
    if not train:
        model.eval()
    with torch.no_grad():
        model(**inputs_of(model))
    for handle in handles:
        handle.remove()
    return calls
