"""A run whose saved model gives other numbers than it reports does not succeed."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from accelerate.state import AcceleratorState
from text_zoo import build
from tiny_runs import overrides
from torch import nn

import hfbench.run
from hfbench.config import load_config
from hfbench.reported import _compare_predictions, _off, _some, _Tolerance
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import check_tensors
from hfbench.training.evaluation import BatchLoss, Predictions
from hfbench.training.standardised import Scale

pytestmark = pytest.mark.usefixtures("own_cache")


def _other_predictions(found: Predictions) -> Predictions:
    return replace(found, predictions=found.predictions * 1.001)


def _other_losses(found: Predictions) -> Predictions:
    return replace(
        found, batches=tuple(replace(b, loss_sum=b.loss_sum * 1.001) for b in found.batches)
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_predictions, r"other predictions .* over 6 of 6 test samples: .* 0\.000999"),
        (_other_losses, r"another test loss than the trained one: 0\.\d+ instead of 0\.\d+ over 6"),
    ],
)
def test_numbers_that_the_saved_model_does_not_give_end_the_run(
    change: Callable[[Predictions], Predictions],
    reason: str,
    tiny_bert: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = hfbench.run.predictions

    def wrong(*arguments: Any) -> Predictions:
        found = own(*arguments)
        return change(found) if arguments[-1] == "test" else found

    monkeypatch.setattr("hfbench.run.predictions", wrong)
    options = overrides(tiny_bert, texts, tmp_path / "run", "strategy=head", "training.max_steps=2")
    with pytest.raises(RuntimeError, match=reason):
        run(load_config(None, options, task="text_classification"))
    result = RunResult.load(tmp_path / "run/result.json")
    assert (result.status, result.saved_check) == ("failed", None)
    assert not (tmp_path / "run/model").exists()


def test_of_a_large_split_some_batches_are_computed_again(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    more = ("training.max_steps=2", "training.eval_batch_size=2", "training.check_samples=4")
    options = overrides(tiny_bert, texts, tmp_path / "run", "strategy=head", *more)
    result = run(load_config(None, options, task="text_classification"))
    check = result.saved_check
    assert check is not None
    assert (check.samples, check.of, check.metric_difference) == (4, 6, 0.0)
    assert RunResult.load(tmp_path / "run/result.json").saved_check == check


def test_the_batches_are_spread_evenly() -> None:
    batches = [BatchLoss((2 * i, 2 * i + 1), 1.0, 2) for i in range(10)]
    assert _some(batches, 20) == batches
    assert [batch.indices[0] for batch in _some(batches, 8)] == [2, 6, 12, 16]
    assert _some(batches, 1) == [batches[5]]


def test_tensors_are_the_same_bit_for_bit() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    check_tensors(model, copy.deepcopy(model))
    for name in ("0.weight", "1.running_mean"):
        other = copy.deepcopy(model)
        other.state_dict()[name].view(-1)[0] += 1e-7
        with pytest.raises(RuntimeError, match=f"other tensors than the trained one: {name}"):
            check_tensors(model, other)
    turned = copy.deepcopy(model)
    turned[0].weight.data = turned[0].weight.data.T.contiguous().T
    check_tensors(model, turned)
    with pytest.raises(RuntimeError, match=r"1\.num_batches_tracked, 1\.running_mean"):
        check_tensors(model, nn.Sequential(model[0], nn.BatchNorm1d(2, track_running_stats=False)))


def test_answers_of_tokens_may_differ_near_a_tie_only() -> None:
    answers = np.arange(400).reshape(200, 2)
    other = answers.copy()
    other[:2] = -100
    assert _compare_predictions(answers, other, None, _Tolerance(), "here") is None
    other[:3] = -100
    measured = _Tolerance(answers=0.015)  # of the samples the run's precision changes some
    assert _compare_predictions(answers, other, None, measured, "here") is None
    with pytest.raises(RuntimeError, match="other answers than the trained one to 3 samples"):
        _compare_predictions(answers, other, None, _Tolerance(), "here")


def test_numbers_far_from_zero_are_compared_by_their_spread() -> None:
    numbers = np.array([799_000.0, 800_000, 801_000], dtype=np.float32)
    scale = Scale(800_000.0, 1000.0)
    z, near, far = (scale.inverse.of_numbers(numbers + np.float32(off)) for off in (0, 0.0625, 2))
    _compare_predictions(z, near, scale, _Tolerance(), "here")
    with pytest.raises(RuntimeError, match="other predictions"):
        _compare_predictions(z, far, scale, _Tolerance(), "here")


@pytest.mark.parametrize("strategy", ["head", "lora:last_n=1"])
@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_numbers_in_bf16_are_compared_in_the_units_in_which_they_are_learnt(
    factor: float, strategy: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions near the mean: what bf16 rounds is a large share of them."""
    own = hfbench.run.predictions

    def wrong(*arguments: Any) -> Predictions:
        found = own(*arguments)
        if arguments[-1] != "test":
            return found
        batches = (replace(b, loss_sum=b.loss_sum * factor) for b in found.batches)
        return replace(found, batches=tuple(batches))

    monkeypatch.setattr("hfbench.run.predictions", wrong)
    monkeypatch.setattr("hfbench.run.foretell", lambda *_: {})
    data = tmp_path / "numbers.jsonl"
    rows = [{"text": " ".join(["cat"] * (i % 7 + 1)), "label": 1000.5 + 10 * i} for i in range(60)]
    data.write_text("\n".join(map(json.dumps, rows)))
    more = (f"strategy={strategy}", "training.mixed_precision=bf16", "training.max_steps=4")
    options = overrides(tiny_bert, data, tmp_path / "run", *more)
    AcceleratorState._reset_state()
    try:
        if factor == 1:
            assert run(load_config(None, options, task="text_classification")).saved_check
        else:
            with pytest.raises(RuntimeError, match="another test loss than the trained one"):
                run(load_config(None, options, task="text_classification"))
    finally:
        AcceleratorState._reset_state()


def test_numbers_that_are_not_finite_have_to_be_the_same() -> None:
    numbers = np.array([[1.0, np.nan], [np.inf, -2.0]], dtype=np.float32)
    assert _compare_predictions(numbers, numbers.copy(), None, _Tolerance(), "here") == 0
    for value in (np.nan, -np.inf, 3.0):
        other = numbers.copy()
        other[1, 0] = value
        with pytest.raises(RuntimeError, match="other predictions"):
            _compare_predictions(numbers, other, None, _Tolerance(), "here")
    assert _off(np.nan, np.nan) == 0
    assert _off(1.5, 1.0) == 0.5


def test_a_network_of_sparse_attention_has_one_kind_for_all_texts(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """A short batch turns BigBird's sparse attention off; its saved model begins with it again."""
    checkpoint, data = tmp_path / "checkpoint", tmp_path / "texts.jsonl"
    tokenizer = transformers.BertTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(checkpoint)
    sizes = {"block_size": 4, "num_random_blocks": 1, "initializer_range": 0.5}
    build("big_bird", vocab_size=len(tokenizer), num_labels=2, **sizes).save_pretrained(checkpoint)
    rows = [
        {
            "text": " ".join([("bad", "good")[i % 2], *["cat"] * (4 if i % 3 else 40)]),
            "label": i % 2,
        }
        for i in range(60)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    options = overrides(checkpoint, data, tmp_path / "run", "training.max_steps=2")
    result = run(load_config(None, options, task="text_classification"))
    assert "all texts get full attention" in result.data["notes"][-1]
    saved = json.loads((tmp_path / "run/model/config.json").read_text())
    assert saved["attention_type"] == "original_full"
