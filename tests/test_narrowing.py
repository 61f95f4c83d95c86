"""Behind the last attention one position is computed: the same numbers from fewer products."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from accelerate import Accelerator
from live_step import make_batch, make_model
from probed_models import TimmNetwork, other_model, probe_of
from tiny_runs import overrides
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hfbench import run as run_module
from hfbench.config import load_config, parse_strategy
from hfbench.models.structure import find_structure
from hfbench.run import run
from hfbench.strategies import apply_strategy
from hfbench.training import narrowing
from hfbench.training.narrowing import narrowed

POSITIONS = {"timm": 17, "vit": 65}  # patches and the class token; 48 tokens of texts


def with_strategy(name: str, strategy: str) -> tuple[nn.Module, Any, dict[str, Tensor]]:
    """A model with its strategy, :func:`narrowed` for it, and a batch."""
    model = other_model(name)
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy(strategy))
    batch = make_batch("vit" if name in ("timm", "vit") else "bert")
    if name == "wav2vec2":
        batch = make_batch(name)
    return model, narrowed(model, structure, probe_of(model, batch), Accelerator()), batch


def gradients(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    model.eval()
    model.zero_grad()
    model(**batch).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("strategy", ["full", "last_1", "lora", "dora", "ia3", "bitfit"])
@pytest.mark.parametrize(
    "name", ["bert", "vit", "distilbert", "deberta", "deberta-with-convolution", "timm"]
)
def test_logits_and_gradients_are_those_of_all_positions(name: str, strategy: str) -> None:
    model, narrow, batch = with_strategy(name, strategy)
    model.eval()
    expected, its_gradients = model(**batch).logits, gradients(model, batch)
    with narrow as names:
        assert names
        torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-6)
        found = gradients(model, batch)
    assert found.keys() == its_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in its_gradients.values())
    for parameter, gradient in found.items():
        torch.testing.assert_close(
            gradient, its_gradients[parameter], rtol=1e-4, atol=1e-6 * largest, msg=parameter
        )
    assert torch.equal(model(**batch).logits, expected)  # afterwards it is as it was


@pytest.mark.parametrize("name", ["bert", "vit", "distilbert", "timm"])
def test_of_the_last_block_only_queries_keys_and_values_see_every_position(name: str) -> None:
    model, narrow, batch = with_strategy(name, "full")

    def flops() -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**batch)
        return int(counter.get_total_flops())

    everything = flops()
    hidden = 192 if name == "timm" else 64
    inside = 128 if name == "distilbert" else 4 * hidden
    samples, left_out = 4, POSITIONS.get(name, 48) - 1
    per_position = 2 * (hidden**2 + 2 * hidden * inside)  # output projection, MLP
    with narrow:
        assert everything - flops() == samples * left_out * per_position


def test_what_runs_before_the_last_block_is_left_alone_whatever_its_name_is() -> None:
    """DeBERTa-v2's convolution stands beside the blocks and runs behind the first of them."""
    _, narrow, _ = with_strategy("deberta-with-convolution", "full")
    with narrow as names:
        assert names == ("deberta.encoder.layer.3.attention.output",)


@pytest.mark.parametrize("name", ["wav2vec2", "gpt2", "albert"])
def test_nothing_changes_where_more_is_read(name: str) -> None:
    """A mean over time, the last token, a block that is run several times."""
    _, narrow, _ = with_strategy(name, "full")
    with narrow as names:
        assert names == ()


@pytest.mark.parametrize("init_values", [None, 1e-5])
def test_a_fresh_adapter_or_scale_hides_nothing(init_values: float | None) -> None:
    """Fresh LoRA adds 0, and a layer's scale may be tiny: what they hide grows in training."""
    network = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, depth=2, img_size=32, patch_size=8,
        init_values=init_values,
    )  # fmt: skip
    model = TimmNetwork(network)
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy("lora:targets=all_linear"))
    batch = make_batch("vit")
    with narrowed(model, structure, probe_of(model, batch), Accelerator()) as names:
        inside = [name.partition("blocks.1.")[2] for name in names]
    assert "norm2" in inside
    assert not any(name.startswith(("attn.qkv", "norm1")) for name in inside)


def test_a_head_that_reads_a_little_of_the_rest_gets_all_of_it() -> None:
    class Mean(transformers.BertForSequenceClassification):
        def forward(self, **batch: Any) -> Any:  # type: ignore[override]
            rest: list[Tensor] = []
            block = self.bert.encoder.layer[-1]
            handle = block.register_forward_hook(lambda m, a, output: rest.append(output))
            outputs = super().forward(**batch)
            handle.remove()
            outputs.logits = outputs.logits + 1e-7 * rest[0].mean()
            return outputs

    model = Mean(make_model("bert").config)
    probe = probe_of(model, make_batch("bert"))
    with narrowed(model, find_structure(model), probe, Accelerator()) as names:
        assert names == ()


def test_gradients_that_are_small_beside_others_count() -> None:
    """Keys of a tiny initialisation hardly matter at first."""
    config = make_model("bert").config
    config.initializer_range = 0.002
    model = transformers.BertForSequenceClassification(config)
    structure = find_structure(model)
    model = apply_strategy(model, structure, parse_strategy("lora:targets=all_linear"))
    with narrowed(model, structure, probe_of(model, make_batch("bert")), Accelerator()) as names:
        assert any("attention.output" in name for name in names)
        assert not any(".key" in name or ".value" in name for name in names)


def test_statistics_of_a_training_batch_are_over_all_positions() -> None:
    model = make_model("vit")

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(64)

        def forward(self, hidden: Tensor) -> Tensor:
            return self.norm(hidden.transpose(1, 2)).transpose(1, 2)

    model.vit.layers[-1].mlp = Normed()
    structure = find_structure(make_model("vit"))
    with narrowed(model, structure, probe_of(model, make_batch("vit")), Accelerator()) as names:
        assert names == ()


def test_a_module_that_refuses_one_position_gets_all() -> None:
    """Longformer's attention asserts that windows fill the text."""
    config = transformers.LongformerConfig(
        attention_window=[4, 4], hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, vocab_size=200, max_position_embeddings=128, num_labels=3,
    )  # fmt: skip
    model = transformers.LongformerForSequenceClassification(config)
    probe = probe_of(model, make_batch("bert"))
    with narrowed(model, find_structure(model), probe, Accelerator()) as names:
        assert not any("attention.self" in name for name in names)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sparse_attention_is_not_given_up_for_a_short_sample() -> None:
    config = transformers.BigBirdConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        vocab_size=200, max_position_embeddings=128, block_size=4, num_random_blocks=1,
    )  # fmt: skip
    model = transformers.BigBirdForSequenceClassification(config)
    probe = probe_of(model, make_batch("bert"))
    with narrowed(model, find_structure(model), probe, Accelerator()) as names:
        assert names == ()
    assert model.bert.attention_type == "block_sparse"


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("strategy", ["full", "last_1"])
def test_runs_have_the_losses_of_all_positions(
    strategy: str,
    tiny_vit: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without dropout, which draws other numbers."""

    def losses(name: str) -> list[float]:
        arguments = overrides(tiny_vit, images, tmp_path / name, f"strategy={strategy}")
        result = run(load_config(None, arguments, task="image_classification"))
        return [record.train_loss for record in result.history]

    narrow = losses("narrow")
    assert "only the first position is computed" in capsys.readouterr().out
    monkeypatch.setattr(run_module, "narrowed", lambda *arguments: nullcontext(()))
    assert narrow == pytest.approx(losses("wide"), rel=1e-5)
    assert "only the first position" not in capsys.readouterr().out


def test_a_block_that_keeps_ranges_of_its_activations_is_left_alone() -> None:
    """I-BERT's are over all positions of a training batch, and are saved with the model."""
    torch.manual_seed(0)
    config = transformers.IBertConfig(
        vocab_size=200,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    model = transformers.IBertForSequenceClassification(config)
    probe = probe_of(model, make_batch("bert"))
    with narrowed(model, find_structure(model), probe, Accelerator()) as names:
        assert names == ()


def test_a_network_with_attention_behind_its_blocks_is_left_alone() -> None:
    """CANINE's last layer, whose output the classifier does not read, runs behind them."""
    torch.manual_seed(0)
    config = transformers.CanineConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        num_hash_buckets=64,
    )
    model = transformers.CanineForSequenceClassification(config)
    probe = probe_of(model, make_batch("bert"))
    with narrowed(model, find_structure(model), probe, Accelerator()) as names:
        assert names == ()


def failing_search(monkeypatch: pytest.MonkeyPatch, message: str) -> Any:
    def fail(search: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(narrowing._Search, "find", fail)
    _, narrow, _ = with_strategy("bert", "full")
    return narrow


def test_a_search_that_fails_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with failing_search(monkeypatch, "no kernel for float64\nCompile with DSA") as names:
        assert names == ()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "last block: all positions are computed; " in said
    assert "no kernel for float64" in said


def test_a_search_that_exhausts_the_memory_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = failing_search(monkeypatch, "CUDA out of memory")
    with pytest.raises(RuntimeError, match="out of memory"), narrow:
        pass
