"""Strategies that cannot do what they say are refused before anything trains."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import yaml
from test_every_strategy import STRATEGIES, TASKS, TIED

from hfbench.cli import DEFAULT_STRATEGIES, LANGUAGE_STRATEGIES, default_strategies
from hfbench.config import load_config, parse_strategy
from hfbench.errors import UserError
from hfbench.models.structure import find_structure
from hfbench.preparation import check_strategy
from hfbench.strategies import check_epochs


@pytest.mark.parametrize("task", TASKS)
def test_the_check_knows_what_suits_a_network(task: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(TASKS[task][0])
    more = [f"model.checkpoint={checkpoint}", "training.epochs=5"]
    for name, spelling in STRATEGIES.items():
        if (task, name) != TIED:
            check_strategy(load_config(None, [*more, f"strategy={spelling}"], task=task))
    with pytest.raises(UserError, match="asks for 4, but"):
        check_strategy(load_config(None, [*more, "strategy=last_4"], task=task))


def test_a_network_from_scratch_suits() -> None:
    check_strategy(load_config(None, [], task="mnist_mlp"))


def test_a_language_model_has_no_head_by_default() -> None:
    assert default_strategies(load_config(None, [], task="causal_lm")) == LANGUAGE_STRATEGIES
    assert "head" not in LANGUAGE_STRATEGIES.split(",")
    assert default_strategies(load_config(None, [], task="text_classification")) == (
        DEFAULT_STRATEGIES
    )
    assert default_strategies(load_config(None, [], task="mnist_mlp")) == "scratch"


def test_a_comparison_with_a_mistake_trains_nothing(
    tiny_gpt2: Path, texts: Path, tmp_path: Path
) -> None:
    settings = {
        "task": "causal_lm",
        "model": {"checkpoint": str(tiny_gpt2)},
        "data": {"source": str(texts), "text_column": "text", "max_length": 32},
        "training": {"max_steps": 1},
    }
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "hfbench", "compare", "--strategies", "full,head"]
    command += ["--config", str(tmp_path / "lm.yaml"), "--output", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "strategy 'head' trains nothing" in done.stderr
    assert not list(tmp_path.glob("runs/**/*"))


def test_steps_that_end_before_everything_is_unfrozen_are_refused() -> None:
    """Three blocks need five epochs: four steps each, and one of the fifth."""
    structure, gradual = find_structure(tiny_models.bert()), parse_strategy("gradual")
    check_epochs(structure, gradual, 5, max_steps=17, steps_per_epoch=4)
    check_epochs(structure, parse_strategy("full"), 5, max_steps=1, steps_per_epoch=4)
    with pytest.raises(UserError, match=r"max_steps=16 ends .* last 3 of 3 blocks.* without train"):
        check_epochs(structure, gradual, 5, max_steps=16, steps_per_epoch=4)
    with pytest.raises(UserError, match=r"training\.epochs=4 ends"):
        check_epochs(structure, gradual, 4, max_steps=100, steps_per_epoch=4)


def test_gradual_unfreezing_is_not_stopped_early() -> None:
    settings = ["strategy=gradual", "training.early_stopping_patience=2"]
    with pytest.raises(UserError, match=r"early_stopping_patience=2 could end strategy 'gradual'"):
        load_config(None, settings)
