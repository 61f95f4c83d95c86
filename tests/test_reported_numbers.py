"""What a run reports of its model is what its saved model gives, whatever the training left out."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from accelerate.state import AcceleratorState
from probed_models import other_model
from tiny_runs import overrides

from hfbench.config import load_config
from hfbench.preparation import make_accelerator, make_task
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.scoring import predictions, scores


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("name", ["deberta", "deberta-with-convolution", "mpnet"])
def test_test_loss_and_metrics_are_those_of_the_saved_model(
    name: str, precision: str, tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    """These networks read more behind a frozen block than what the block gives."""
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "run"
    transformers.BertTokenizer.from_pretrained(tiny_bert).save_pretrained(checkpoint)
    model: Any = other_model(name)
    model.base_model.save_pretrained(checkpoint)
    options = overrides(
        checkpoint, texts, folder, "strategy=last_1", f"training.mixed_precision={precision}"
    )
    config = load_config(None, options, task="text_classification")
    result = run(config)
    assert result.prefix is not None
    AcceleratorState._reset_state()
    exact = load_config(None, [*options, "training.mixed_precision=no"], task="text_classification")
    task = make_task(exact)
    test = task.prepare_data().test
    saved = load_model(folder / "model")
    found = scores(task, predictions(exact, task, saved, test, make_accelerator(exact), "test"))
    rounding = 1e-5 if precision == "no" else 5e-3
    assert result.test_metrics["loss"] == pytest.approx(found["loss"], rel=rounding)
    if precision == "no":
        assert result.test_metrics["accuracy"] == found["accuracy"]
    AcceleratorState._reset_state()
