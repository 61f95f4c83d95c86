"""Several labels, a number or weighted classes: from the settings to the model card."""

import json
import math
from pathlib import Path

import pytest
from datasets import Dataset, Features, List, Value
from tiny_runs import overrides

from hfbench.cli import main, recipe_main
from hfbench.config import DataConfig, load_config
from hfbench.data.splits import load_splits
from hfbench.errors import UserError
from hfbench.report.model_card import model_card
from hfbench.results import RunResult
from hfbench.tasks import make_task
from hfbench.tasks.problems import WeightedLoss

WORDS = ("cat", "red", "one", "two", "three", "four")


def texts_of(count: int) -> list[str]:
    """Different ones, of four words each: numbers below 6⁴ in base 6."""
    numbers = [277 * i % 6**4 for i in range(count)]  # 277 and 6 have no common divisor
    return [" ".join(WORDS[n // 6**place % 6] for place in range(4)) for n in numbers]


def labels_in(text: str) -> list[str]:
    return [label for label, word in (("colour", "red"), ("pet", "cat")) if word in text.split()]


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """300 texts with the list of what they speak of."""
    path = tmp_path / "several.jsonl"
    rows = [{"text": text, "labels": labels_in(text)} for text in texts_of(300)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """120 texts with half the number of their pets."""
    path = tmp_path / "numbers.csv"
    rows = [f"{text},{text.split().count('cat') / 2}" for text in texts_of(120)]
    path.write_text("\n".join(["text,label", *rows]))
    return path


def test_settings_that_do_not_fit_are_errors(several: Path, tmp_path: Path) -> None:
    regression = DataConfig(source=str(several), problem_type="regression")
    with pytest.raises(UserError, match=r"one number a row for data.problem_type=regression"):
        load_splits(regression, "text")
    table = tmp_path / "table.csv"
    table.write_text("text,label\na,b\n")
    multi = DataConfig(source=str(table), problem_type="multi_label_classification")
    with pytest.raises(UserError, match=r"a list of labels.*data.label_columns"):
        load_splits(multi, "text")
    with pytest.raises(UserError, match=r"label_columns=\['x'\] and data.label_column='y'"):
        DataConfig(label_columns=("x",), label_column="y")
    with pytest.raises(UserError, match=r"names a column twice"):
        DataConfig(label_columns=("x", "x"))
    with pytest.raises(UserError, match=r"data.label_columns='x' is not a column; choose: text"):
        load_splits(DataConfig(source=str(table), label_columns=("x",)), "text")
    for option in ("data.problem_type=regression", "training.class_weights=balanced"):
        with pytest.raises(UserError, match=r"belongs to text_classification.*mnist_mlp"):
            load_config(None, [option], task="mnist_mlp")


# ---- whole runs


def test_a_run_with_several_labels_predicts_all_that_apply(
    tiny_bert: Path, several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = overrides(
        tiny_bert, several, tmp_path / "run", "training.epochs=8", "training.learning_rate=4e-3"
    )
    assert recipe_main("text_classification", None, options) == 0
    result = RunResult.load(tmp_path / "run/result.json")
    assert (result.primary_metric, result.greater_is_better) == ("f1_micro", True)
    assert result.test_metrics["f1_micro"] > 0.9
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "colour", "1": "pet"}
    capsys.readouterr()
    inputs = ["red three red four", "one two three two", "cat red one cat"]
    command = ["predict", str(tmp_path / "run"), *inputs, "--format", "json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    said = [{c["label"] for c in row["top"]} for row in found]
    assert said == [{"colour"}, set(), {"colour", "pet"}]
    assert all(c["probability"] >= 0.5 for row in found for c in row["top"])
    assert (found[1]["label"], found[1]["probability"]) == (None, None)
    assert main([*command, "--top", "2"]) == 0
    asked = json.loads(capsys.readouterr().out)["predictions"]
    assert [len(row["top"]) for row in asked] == [2, 2, 2]
    assert asked[2]["top"][0]["probability"] >= asked[2]["top"][1]["probability"]
    assert main(command[:-2]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()][3] == "-"


@pytest.mark.parametrize("strategy", ["last_1", "lora"])
def test_a_run_of_numbers_predicts_a_number(
    tiny_bert: Path,
    numbers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    more = (f"strategy={strategy}", "training.epochs=4")
    options = overrides(tiny_bert, numbers, tmp_path / "run", *more)
    assert recipe_main("text_classification", None, options) == 0
    result = RunResult.load(tmp_path / "run/result.json")
    assert (result.primary_metric, result.greater_is_better) == ("mse", False)
    variance = result.data["targets"]["std"] ** 2
    assert result.test_metrics["mse"] == pytest.approx(result.test_metrics["loss"] * variance, 1e-4)
    values = [record.validation["mse"] for record in result.history]
    assert result.best_validation == min(values) < values[0]
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), "one two", "--format", "csv"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading == "input,value"
    assert math.isfinite(float(row.split(",")[1]))
    assert main(["compare", str(tmp_path)]) == 0
    assert "mse" in capsys.readouterr().out


def test_a_sound_or_an_image_may_have_several_labels_or_a_number(
    tiny_wav2vec2: Path, tiny_vit: Path, sounds: Path, images: Path, tmp_path: Path
) -> None:
    """Wav2Vec2's own head knows neither."""
    for task, checkpoint, folder, label in (
        ("audio_classification", tiny_wav2vec2, sounds, lambda i: ["loud"] * (i % 2)),
        ("image_classification", tiny_vit, images, lambda i: i / 4),
    ):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        rows = [{"file_name": str(p), "label": label(i)} for i, p in enumerate(files)]  # type: ignore[no-untyped-call]
        source = tmp_path / task
        source.mkdir()
        (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        run = tmp_path / f"run_{task}"
        options = overrides(checkpoint, source, run, "strategy=last_1", "training.epochs=1")
        assert recipe_main(task, None, options) == 0
        result = RunResult.load(run / "result.json")
        assert result.primary_metric == {"a": "f1_micro", "i": "mse"}[task[0]]
        assert math.isfinite(result.test_metrics["loss"])


def test_class_weights_are_those_of_the_training_samples(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{text},{'rare' if i % 5 == 0 else 'often'}" for i, text in enumerate(texts_of(100))]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    options = overrides(tiny_bert, tmp_path / "train.csv", tmp_path / "run", "strategy=head")
    weighted = [*options, "training.class_weights=balanced", "training.max_steps=1"]
    assert recipe_main("text_classification", None, weighted) == 0
    # of 100 rows 80 remain for train, 64 of them "often": 80 / (2 × 64) and 80 / (2 × 16)
    assert "0.625 (often), 2.5 (rare)" in capsys.readouterr().out
    task = make_task(load_config(None, weighted, task="text_classification"))
    data = task.prepare_data()
    loss = task.own_loss(data)
    assert isinstance(loss, WeightedLoss)
    assert loss.weights == [0.625, 2.5]


def test_class_weights_are_refused_where_a_sample_has_not_one_label(
    tiny_bert: Path, several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = overrides(tiny_bert, several, tmp_path / "run", "training.class_weights=balanced")
    assert recipe_main("text_classification", None, options) == 2
    assert "these data are multi label classification" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["several", "numbers"])
def test_the_card_says_what_the_outputs_are(
    kind: str, tiny_bert: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(kind)
    options = overrides(tiny_bert, data, tmp_path / "run", "training.max_steps=1")
    assert recipe_main("text_classification", None, options) == 0
    result = RunResult.load(tmp_path / "run/result.json")
    card = model_card(result, repo_id="me/it", contents="model", local=[str(data)])
    program = card.split("```python\n")[1].split("```")[0]
    compile(program, "card", "exec")
    if kind == "several":
        assert "2 labels, in the order of the model's outputs, of which several or none" in card
        assert "logits.sigmoid()" in program
        matrix = result.test_metrics["multilabel_confusion_matrix"]
        true = sum(matrix[0][1])
        assert f"| `colour` | {true} |" in card
    else:
        assert "its mse is **" in card
        values = result.data["targets"]
        assert f"in the data: from {values['min']:g} to {values['max']:g} in train" in card
        assert "softmax" not in program


def test_features_of_a_saved_table_may_be_typed(tmp_path: Path) -> None:
    """Parquet with its own types reads as json does."""
    rows = {"text": texts_of(20), "labels": [labels_in(text) for text in texts_of(20)]}
    typed = Features({"text": Value("string"), "labels": List(Value("string"))})
    Dataset.from_dict(rows, features=typed).to_parquet(tmp_path / "a.parquet")
    lines = (
        json.dumps(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)
    )
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    one, two = (
        load_splits(DataConfig(source=str(tmp_path / name)), "text")
        for name in ("a.parquet", "a.jsonl")
    )
    assert one.summary["fingerprint"] == two.summary["fingerprint"]
    assert one.label_names == two.label_names == ("colour", "pet")
