"""Your own files in every shape: several labels, numbers, weights, splits and duplicates."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, List, Value
from PIL import Image
from scipy import stats  # type: ignore[import-untyped]
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from tiny_runs import overrides
from torch import Tensor, nn

from hfbench.cli import main, recipe_main
from hfbench.config import DataConfig, TrainingConfig, load_config
from hfbench.data.files import load_local
from hfbench.data.labels import LabelColumns, Number, SeveralLabels, find_labels
from hfbench.data.splits import describe, load_splits
from hfbench.errors import UserError
from hfbench.report.model_card import model_card
from hfbench.results import RunResult
from hfbench.scores import multi_label_metrics, regression_metrics
from hfbench.tasks import make_task
from hfbench.tasks.problems import PROBLEMS, WeightedLoss, balanced_weights
from hfbench.training.fit import Objective, fit
from hfbench.training.losses import OwnLoss
from hfbench.training.optimizer import LearningRates

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


# ---- what the label column holds


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", "b"], None, "single_label_classification"),
        (["1", "2"], None, "single_label_classification"),
        (["1.0", "2.0"], None, "single_label_classification"),
        (["1.5", "2", ""], None, "regression"),
        ([1.5, 2.0, None], None, "regression"),
        ([[], ["a"]], None, "multi_label_classification"),
        ([["a"], None], None, "multi_label_classification"),
    ],
)
def test_the_problem_is_seen_where_it_is_beyond_doubt(
    values: list[Any], kind: Any, expected: str
) -> None:
    dataset = Dataset.from_dict({"y": values})
    assert find_labels(dataset, "y", DataConfig()).problem_type == expected


def test_whole_numbers_as_floats_are_asked_for() -> None:
    dataset = Dataset.from_dict({"y": [1.0, 2.0, 2.0]})
    with pytest.raises(UserError, match=r"whole numbers as float64.*data.problem_type"):
        find_labels(dataset, "y", DataConfig())
    single = find_labels(dataset, "y", DataConfig(problem_type="single_label_classification"))
    assert single.names == ("1", "2")
    assert single.encode(dataset, "y")[0].tolist() == [0, 1, 1]
    number = find_labels(dataset, "y", DataConfig(problem_type="regression"))
    assert number.encode(dataset, "y")[0].tolist() == [1, 2, 2]


def test_lists_become_zeros_and_ones() -> None:
    train = Dataset.from_dict({"y": [["b", "a"], [], ["c"], None, ["b", "d"]]})
    assert find_labels(train, "y", DataConfig()).names == ("a", "b", "c", "d")
    labels, problems = SeveralLabels(("a", "b", "c")).encode(train, "y")
    assert labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert problems == {3: "no list of labels (y=None)", 4: "the label 'd', which train lacks"}
    typed = Features({"y": List(ClassLabel(names=["x", "y", "z"]))})
    dataset = Dataset.from_dict({"y": [[2, 0], [1]]}, features=typed)
    found = find_labels(dataset, "y", DataConfig())
    assert found.names == ("x", "y", "z")
    assert found.encode(dataset, "y")[0].tolist() == [[1, 0, 1], [0, 1, 0]]


def test_columns_of_zeros_and_ones_become_labels() -> None:
    dataset = Dataset.from_dict({"a": ["1", "0", "2"], "b": ["0", "1", "1"]})
    labels, problems = LabelColumns(("a", "b")).encode(dataset, "a")
    assert labels.tolist()[:2] == [[1, 0], [0, 1]]
    assert problems == {2: "neither 0 nor 1 (a='2')"}
    flags = Dataset.from_dict({"a": [True, False], "b": [1, 0]})
    assert LabelColumns(("a", "b")).encode(flags, "a")[0].tolist() == [[1, 1], [0, 0]]


def test_what_is_no_number_is_named() -> None:
    dataset = Dataset.from_dict({"y": ["1.5", "many", "", "inf", "-2"]})
    labels, problems = Number(("y",)).encode(dataset, "y")
    assert (labels[0], labels[4]) == (1.5, -2)
    assert problems == {1: "no number (y='many')", 2: "no number (y='')", 3: "no number (y='inf')"}


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


# ---- splits and duplicates


def test_splits_of_several_labels_have_the_rare_ones_too(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "labels": ["often"] * (i % 4 != 0)} for i in range(180)]
    rows += [{"text": f"r {i}", "labels": ["often", "rare"]} for i in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = load_splits(DataConfig(source=str(path)), "text")
    assert splits.label_names == ("often", "rare")
    # a tenth of 45 without and of 20 with the rare one; then as many of the 41 and 18 that are left
    for split, without in ((splits.test, 4), (splits.validation, 5)):
        labels = np.array(split["labels"][:])
        assert labels[:, 1].sum() == 2
        assert (labels.sum(axis=1) == 0).sum() == without
    assert "stratified by each sample's rarest label" in describe(splits.summary)
    assert "2 labels of which several may apply: often, rare" in describe(splits.summary)


def test_splits_of_numbers_have_the_same_distribution(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"t {i},{i / 2}" for i in range(200)]
    path.write_text("\n".join(["text,label", *lines]))
    splits = load_splits(DataConfig(source=str(path)), "text")
    for split in (splits.validation, splits.test):
        tenths = np.histogram(split["labels"][:], bins=10, range=(0, 100))[0]
        assert len(split) == 20
        assert tenths.min() >= 1
    train = np.array(splits.train["labels"][:])
    assert splits.summary["targets"]["mean"] == pytest.approx(train.mean())
    assert splits.summary["targets"]["std"] == pytest.approx(train.std())
    assert "regression, numbers of train from" in describe(splits.summary)


def test_texts_in_two_splits_are_counted_and_named(tmp_path: Path) -> None:
    rows = {
        "train": ["one a", "two b", "three a", "four b"],
        "validation": ["five a", " two b"],
        "test": ["six a", "two  b", "one a", "five a", "one b"],
    }
    for split, lines in rows.items():
        table = ["text,label", *(f"{line[:-2]} ,{line[-1]}" for line in lines)]
        (tmp_path / f"{split}.csv").write_text("\n".join(table))
    summary = load_splits(DataConfig(source=str(tmp_path)), "text").summary
    # "two " with one more space at its end is the same text, whatever its label
    assert summary["duplicates"] == [
        {
            "split": "validation",
            "of": "train",
            "count": 1,
            "examples": [["validation row 1", "train row 1"]],
        },
        {
            "split": "test",
            "of": "train",
            "count": 3,
            "examples": [
                ["test row 1", "train row 1"],
                ["test row 2", "train row 0"],
                ["test row 4", "train row 0"],
            ],
        },
        {
            "split": "test",
            "of": "validation",
            "count": 2,
            "examples": [
                ["test row 1", "validation row 1"],
                ["test row 3", "validation row 0"],
            ],
        },
    ]
    note = "samples of test with the input of one of train: 3, for instance test row 1 as train row"
    assert any(text.startswith(note) for text in summary["notes"])


def test_images_in_two_splits_are_equal_as_bytes(images: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("dark", "light"):
            (tmp_path / split / label).mkdir(parents=True)
    for index in range(20):
        for label in ("dark", "light"):
            content = (images / label / f"{index}.png").read_bytes()
            (tmp_path / "train" / label / f"{index}.png").write_bytes(content)
    (tmp_path / "test/light/copy.png").write_bytes((images / "light/3.png").read_bytes())
    pixels = np.asarray(Image.open(images / "dark/3.png"))
    Image.fromarray(pixels).save(tmp_path / "test/dark/again.png", compress_level=1)
    summary = load_splits(DataConfig(source=str(tmp_path)), "image").summary
    (found,) = summary["duplicates"]
    assert (found["split"], found["of"], found["count"]) == ("test", "train", 1)
    # rows in the order of the paths: 20 dark ones, then 0, 1, 10 to 19, 2, 3
    assert found["examples"] == [["test row 1", "train row 33"]]


# ---- folders


def write_media(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        soundfile.write(path, np.zeros(160), 16000)
    else:
        Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize(("kind", "suffix"), [("image", "png"), ("audio", "wav")])
def test_metadata_name_the_files_of_a_folder(tmp_path: Path, kind: str, suffix: str) -> None:
    names = [f"sub/{i}.{suffix}" for i in range(4)]
    for name in names:
        write_media(tmp_path / name)
    lines = ["file_name,mood", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(names))]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    found = load_local(tmp_path)
    assert list(found) == ["train"]
    assert found["train"]["mood"][:] == ["a", "b", "a", "b"]
    assert found["train"][kind][:] == [str(tmp_path / name) for name in names]


def test_metadata_of_each_split_and_of_all_give_the_same(tmp_path: Path) -> None:
    counts = {"train": 6, "validation": 2, "test": 2}
    whole = []
    for split, count in counts.items():
        rows = [{"file_name": f"{i}.png", "label": i % 2 + 0.5} for i in range(count)]
        for row in rows:
            write_media(tmp_path / "each" / split / row["file_name"])
            write_media(tmp_path / "all" / split / row["file_name"])
            whole.append(row | {"file_name": f"{split}/{row['file_name']}"})
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / "each" / split / "metadata.jsonl").write_text(lines)
    (tmp_path / "all/metadata.jsonl").write_text("\n".join(map(json.dumps, whole)))
    for folder in ("each", "all"):
        splits = load_splits(DataConfig(source=str(tmp_path / folder)), "image")
        assert {split: len(getattr(splits, split)) for split in counts} == counts
        assert splits.problem_type == "regression"
        assert splits.test["image"][1] == str(tmp_path / folder / "test/1.png")


def test_metadata_that_miss_something_are_errors(tmp_path: Path) -> None:
    write_media(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file,label\na.png,x\n")
    with pytest.raises(UserError, match=r"needs a column file_name.*it has: file, label"):
        load_local(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\na.txt,x\n")
    with pytest.raises(UserError, match="holds no images"):
        load_local(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"metadata.csv and metadata.jsonl: keep one"):
        load_local(tmp_path)


def test_class_folders_of_texts(tmp_path: Path) -> None:
    for split, label, name, text in (
        ("train", "neg", "1.txt", "bad\nfilm"),
        ("train", "pos", "2.txt", "good film"),
        ("test", "pos", "1.txt", "great"),
    ):
        (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / split / label / name).write_text(text)
    found = load_local(tmp_path)
    assert found["train"]["text"][:] == ["bad\nfilm", "good film"]
    assert found["train"]["label"][:] == ["neg", "pos"]
    assert found["test"]["text"][:] == ["great"]
    (tmp_path / "test/pos/1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"1.txt' is not a readable UTF-8 text"):
        load_local(tmp_path)


# ---- metrics, losses and weights


def test_scores_of_several_labels_by_hand() -> None:
    true = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=bool)
    said = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    scores = multi_label_metrics(said, true)
    assert scores["subset_accuracy"] == 2 / 4
    assert scores["hamming_loss"] == pytest.approx(2 / 12)
    # 3 right of 4 said and of 4 true; by label F1 1, 1/2 and, of nothing, 0
    assert (scores["precision_micro"], scores["recall_micro"]) == (3 / 4, 3 / 4)
    assert scores["f1_micro"] == 3 / 4
    assert scores["f1_macro"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores["multilabel_confusion_matrix"] == [
        [[2, 0], [0, 2]],
        [[1, 1], [1, 1]],
        [[4, 0], [0, 0]],
    ]


def test_scores_of_numbers_by_hand() -> None:
    scores = regression_metrics(np.array([1.0, 2, 4]), np.array([1.0, 3, 2]))
    assert scores["mse"] == pytest.approx((0 + 1 + 4) / 3)
    assert scores["mae"] == pytest.approx((0 + 1 + 2) / 3)
    assert scores["r2"] == pytest.approx(1 - 5 / 2)
    # deviations (-4/3, -1/3, 5/3) and (-1, 1, 0): covariance 1, variances 14/3 and 2
    assert scores["pearson"] == pytest.approx(1 / math.sqrt(14 / 3 * 2))
    assert scores["spearman"] == pytest.approx(1 - 6 * (0 + 1 + 1) / (3 * 8))
    assert math.isnan(regression_metrics(np.array([1.0, 1]), np.array([1.0, 2]))["pearson"])
    constant = regression_metrics(np.array([1.0, 2]), np.array([3.0, 3]))
    assert math.isnan(constant["r2"])
    assert constant["mse"] == (4 + 1) / 2


def test_scores_are_those_of_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(0)
    true, said = rng.random((30, 4)) < 0.3, rng.random((30, 4)) < 0.4
    scores = multi_label_metrics(said, true)
    for average in ("micro", "macro"):
        expected = metrics.precision_recall_fscore_support(true, said, average=average)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert scores[f"{name}_{average}"] == pytest.approx(value)
    matrix = metrics.multilabel_confusion_matrix(true, said)
    assert scores["multilabel_confusion_matrix"] == matrix.tolist()
    values, guesses = rng.integers(0, 6, 40), rng.integers(0, 6, 40)  # with ties
    numbers = regression_metrics(guesses.astype(np.float32), values.astype(np.float32))
    assert numbers["r2"] == pytest.approx(metrics.r2_score(values, guesses))
    assert numbers["pearson"] == pytest.approx(stats.pearsonr(guesses, values).statistic)
    assert numbers["spearman"] == pytest.approx(stats.spearmanr(guesses, values).statistic)


def test_losses_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    expected = (math.log(2) + math.log(4)) / 2  # -log of 1/2 and of 1 - 3/4
    assert PROBLEMS["multi_label_classification"].loss(logits, labels).item() == pytest.approx(
        expected
    )
    found = PROBLEMS["regression"].loss(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.5]))
    assert found.item() == (4 + 0.25) / 2


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = [0] * 6 + [2] * 3 + [1]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(labels, 3) == pytest.approx(expected.tolist())
    assert balanced_weights(labels, 3) == pytest.approx([10 / 18, 10 / 3, 10 / 9])
    assert balanced_weights([0, 0, 2], 3) == pytest.approx([3 / 4, 1.0, 3 / 2])
    assert np.mean([balanced_weights(labels, 3)[label] for label in labels]) == pytest.approx(1)


def test_a_weighted_loss_is_a_mean_over_samples_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    found = WeightedLoss([0.5, 4.0])(logits, torch.tensor([0, 1]))
    assert found.item() == pytest.approx((0.5 * math.log(2) + 4 * math.log(4 / 3)) / 2)


class Linear(nn.Module):
    """Three features to three labels; without ``labels`` no loss, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.asked_for_loss = False

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutput

        self.asked_for_loss |= labels is not None
        return SequenceClassifierOutput(logits=self.layer(x))


@pytest.mark.parametrize("accumulation", [1, 5])
def test_weighted_steps_are_the_same_in_one_batch_and_in_many(
    tmp_path: Path, accumulation: int
) -> None:
    """Two steps of 9 samples by hand; in batches of 2 the last one has a single sample."""
    torch.manual_seed(0)
    x, y = torch.randn(9, 3), torch.tensor([0] * 6 + [1, 1, 2])
    weights = torch.tensor(balanced_weights(y.tolist(), 3))
    model, expected = Linear(), nn.Linear(3, 3)
    expected.load_state_dict(model.layer.state_dict())
    for _ in range(2):
        each = F.cross_entropy(expected(x), y, reduction="none") * weights[y].float()
        expected.zero_grad()
        each.mean().backward()
        with torch.no_grad():
            for parameter in expected.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    OwnLoss(WeightedLoss(weights.tolist())).attach(model)
    result = fit(
        model,
        [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)],  # type: ignore[arg-type]
        Objective(
            collate=lambda samples: {
                "x": torch.stack([s["x"] for s in samples]),
                "labels": torch.stack([s["labels"] for s in samples]),
            },
            loss_units=lambda batch: len(batch["labels"]),
        ),
        config=TrainingConfig(
            epochs=2,
            batch_size=9 if accumulation == 1 else 2,
            gradient_accumulation_steps=accumulation,
            optimizer="sgd",
            weight_decay=0.0,
            lr_scheduler_type="constant",
            warmup_ratio=0.0,
            max_grad_norm=None,
        ),
        rates=LearningRates(rest=0.1, head=0.1),
        accelerator=Accelerator(cpu=True),
        folder=tmp_path,
        seed=0,
    )
    assert not model.asked_for_loss
    assert result.step_losses[1] == pytest.approx(each.mean().item(), abs=1e-6)
    for found, wanted in zip(model.layer.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


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
    assert result.test_metrics["mse"] == pytest.approx(result.test_metrics["loss"], rel=1e-5)
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
