"""Numbers far from 0: learnt in standard units, given in the data's, by the saved model too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import tiny_models
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset
from probed_models import other_model
from strategy_models import prepare
from tiny_runs import overrides
from torch import Tensor, nn

from hfbench.cli import recipe_main
from hfbench.config import DataConfig, load_config
from hfbench.data.labels import Number
from hfbench.data.splits import load_splits
from hfbench.errors import UserError
from hfbench.models.structure import find_structure
from hfbench.results import RunResult
from hfbench.saving import load_model
from hfbench.tasks import make_task
from hfbench.training.standardised import NotFoldedError, Scale, Standardised, standardise

WORDS = ("cat", "red", "one", "two", "three", "four")
MEAN, STD = 800_000.0, 1_000.0


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(logits.squeeze(-1), labels)


def one_output(config: Any, model_class: Any) -> nn.Module:
    config.num_labels = 1
    torch.manual_seed(0)
    model: nn.Module = model_class(config)
    return model


def rebuilt(model: nn.Module) -> nn.Module:
    return one_output(model.config, type(model))


def distilled_deit() -> nn.Module:
    """The mean of two heads."""
    config = transformers.DeiTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    return one_output(config, transformers.DeiTForImageClassificationWithTeacher)


def roberta() -> nn.Module:
    config = transformers.RobertaConfig(
        vocab_size=50, max_position_embeddings=20, pad_token_id=0, **tiny_models.SMALL
    )
    return one_output(config, transformers.RobertaForSequenceClassification)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: rebuilt(tiny_models.bert()),
    "deberta": lambda: rebuilt(tiny_models.deberta()),
    "distilbert": lambda: rebuilt(other_model("distilbert")),
    "albert": lambda: rebuilt(other_model("albert")),
    "roberta": roberta,
    "vit": lambda: rebuilt(tiny_models.vit()),
    "deit": distilled_deit,
    "wav2vec2": lambda: rebuilt(tiny_models.wav2vec2()),
    "gpt2": lambda: rebuilt(tiny_models.gpt2()),
}


def batch_of(model: nn.Module) -> dict[str, Tensor]:
    if "DeiT" in type(model).__name__:
        return {"pixel_values": torch.randn(2, 3, 8, 8)}
    batch = tiny_models.batch_for(model)
    return {key: value for key, value in batch.items() if key != "labels"}


def standardised(model: nn.Module, **settings: Any) -> Standardised:
    names = frozenset(name for name, _ in model.named_parameters())
    given = {"mean": MEAN, "std": STD, "new": names} | settings
    return standardise(model, find_structure(model), loss, batch_of(model), **given)


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_head_gives_what_the_network_gave_in_the_units_of_the_data(name: str) -> None:
    model = MODELS[name]().eval()
    batch = batch_of(model)
    with torch.no_grad():
        z = model(**batch).logits
        found = standardised(model)
        assert found.scale == (  # GPT-2's head has no bias
            Scale(0, (MEAN**2 + STD**2) ** 0.5) if name == "gpt2" else Scale(MEAN, STD)
        )
        labels = torch.tensor([MEAN, MEAN + 2 * STD])
        outputs = model(**batch, labels=labels)
        expected = z * found.scale.scale + found.scale.centre
        assert torch.equal(outputs.logits, expected)
        assert torch.equal(outputs.standardised, z)
        numbers = (labels - found.scale.centre) / found.scale.scale
        assert outputs.loss.item() == pytest.approx(((z[:, 0] - numbers) ** 2).mean().item())
        found.fold()
        folded = model(**batch).logits
    assert (folded - expected).abs().max() < 1e-3 * STD + 1e-6 * found.scale.scale


@pytest.mark.parametrize("strategy", ["full", "head", "lora", "bitfit"])
def test_what_trains_moves_in_standard_units_whatever_the_strategy(strategy: str) -> None:
    model = MODELS["roberta"]()
    new = tuple(name for name, _ in model.named_parameters() if name.startswith("classifier"))
    trained, structure = prepare(model, strategy, new)
    batch = batch_of(model)
    found = standardise(trained, structure, loss, batch, mean=MEAN, std=STD, new=new)
    trained.eval()
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.05)
    target = torch.tensor([MEAN + STD, MEAN - STD])
    for _ in range(100):
        optimizer.zero_grad()
        trained(**batch, labels=target).loss.backward()
        optimizer.step()
    with torch.no_grad():
        outputs = trained(**batch).logits
        found.fold()
        folded = trained(**batch).logits
    assert (outputs[:, 0] - target).abs().max() < STD
    assert (folded - outputs).abs().max() < 1e-3 * STD
    if isinstance(trained, peft.PeftModel):
        merged = trained.merge_and_unload()
        assert (merged(**batch).logits - outputs).abs().max() < 1e-3 * STD


def test_a_head_that_gives_the_units_already_still_does() -> None:
    model = MODELS["roberta"]().eval()
    batch = batch_of(model)
    with torch.no_grad():
        model.classifier.out_proj.bias.fill_(MEAN + STD)
        before = model(**batch).logits
        found = standardised(model, new=frozenset())
        assert model(**batch).standardised.mean() == pytest.approx(1, abs=0.01)
        assert (model(**batch).logits - before).abs().max() < 1e-3 * STD
        found.fold()
        assert (model(**batch).logits - before).abs().max() < 1e-3 * STD


def test_what_cannot_be_folded_is_not_standardised() -> None:
    model = MODELS["bert"]()
    structure, batch = find_structure(model), batch_of(model)
    before = [parameter.clone() for parameter in model.parameters()]
    settings: dict[str, Any] = {"mean": MEAN, "std": STD, "new": frozenset()}
    handle = model.classifier.register_forward_hook(lambda module, args, output: output**2)
    with pytest.raises(NotFoldedError, match="does not follow its last linear layers"):
        standardise(model, structure, loss, batch, **settings)
    handle.remove()
    model.classifier.requires_grad_(False)
    with pytest.raises(NotFoldedError, match="the head does not train"):
        standardise(model, structure, loss, batch, **settings)
    assert all(map(torch.equal, model.parameters(), before))
    three = tiny_models.bert()
    with pytest.raises(NotFoldedError, match="no linear layer with one output"):
        standardise(three, find_structure(three), loss, batch, **settings)


# ---- whole runs


def write(path: Path, number: Callable[[int], float], rows: int = 400) -> Path:
    """Texts of four words and a number of how often the word cat is among them."""
    numbers = [277 * i % 6**4 for i in range(rows)]
    texts = [" ".join(WORDS[n // 6**place % 6] for place in range(4)) for n in numbers]
    lines = [f"{text},{number(text.split().count('cat')):.3f}" for text in texts]
    path.write_text("\n".join(["text,label", *lines]))
    return path


@pytest.mark.parametrize(
    ("strategy", "number"),
    [("full", lambda n: MEAN + STD * n + 0.5), ("lora", lambda n: 4.4 + n / 100)],
)
def test_numbers_far_from_zero_are_learnt_and_predicted_in_their_units(
    strategy: str,
    number: Callable[[int], float],
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(tmp_path / "numbers.csv", number)
    folder = tmp_path / "run"
    more = (f"strategy={strategy}", "training.epochs=6", "training.max_steps=200")
    assert (
        recipe_main("text_classification", None, overrides(tiny_bert, source, folder, *more)) == 0
    )
    result = RunResult.load(folder / "result.json")
    test = result.test_metrics
    assert test["r2"] > 0.5
    spread = number(1) - number(0)
    assert test["mse"] < 0.5 * test["baseline_mse"]
    assert test["loss"] == pytest.approx(test["mse"] / result.data["targets"]["std"] ** 2, rel=1e-3)
    said = capsys.readouterr().out
    assert "numbers are learnt as (number - " in said
    assert f"the mean of train has a mse of {test['baseline_mse']:.6g} on test" in said
    assert f"({test['baseline_mse']:.4f} by the mean of train)" in said
    splits = load_splits(DataConfig(source=str(source)), "text")
    assert result.data["targets"]["mean"] == pytest.approx(np.mean(splits.train["labels"][:]))
    if strategy == "full":  # a plain folder of Hugging Face
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model")
    else:
        model = load_model(folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    inputs = tokenizer(["one two three", "cat cat cat"], return_tensors="pt")
    with torch.no_grad():
        none, many = model.eval()(**inputs).logits[:, 0].tolist()
    assert number(-1) < none < many < number(4)
    assert many - none > 0.5 * spread


def test_small_differences_are_compared_in_standard_units(tiny_bert: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "numbers.csv", lambda n: MEAN + n + 0.5, rows=40)
    options = overrides(tiny_bert, source, tmp_path / "run")
    task = make_task(load_config(None, options, task="text_classification"))
    data = task.prepare_data()
    model = task.build_model(data).model
    batch = task.check_batch(data.test)
    new = frozenset(name for name, _ in model.named_parameters())
    standardise(model, find_structure(model), loss, batch, mean=MEAN, std=0.5, new=new)
    outputs = model(**batch)
    assert task.comparable(outputs, batch).abs().max() < 10
    assert (task.predictions(outputs, batch) - MEAN).abs().max() < 10


def test_numbers_between_which_float32_has_no_others_are_refused() -> None:
    seconds = Dataset.from_dict({"y": [1.7e9 + i for i in range(1000)]})
    number = Number(("y",))
    labels, _ = number.encode(seconds, "y")
    with pytest.raises(
        UserError, match=r"spread by 2.* around 1\.7e\+09, .*steps of 128: subtract"
    ):
        number.check_train(labels, "source")
    number.check_train(np.float32([MEAN, MEAN + STD]), "source")


def test_a_run_that_stops_before_saving_resumes_to_the_same_model(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "numbers.csv", lambda n: MEAN + STD * n + 0.5, rows=80)
    results = []
    for name in ("whole", "stopped"):
        options = overrides(tiny_bert, source, tmp_path / name, "training.save_steps=3")
        with monkeypatch.context() as patch:
            if name == "stopped":
                patch.setattr(Standardised, "fold", lambda self: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    recipe_main("text_classification", None, options)
        assert recipe_main("text_classification", None, options) in (0, None)
        results.append(RunResult.load(tmp_path / name / "result.json"))
    assert results[0].test_metrics == results[1].test_metrics
    weights = [
        (tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "stopped")
    ]
    assert weights[0] == weights[1]
