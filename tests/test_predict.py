"""``hfbench predict``: the answers are those of the run's own evaluation, wherever the model is."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from loopback_hub import ACCOUNTS, LoopbackHub
from online import User, online_process
from predict_calls import Captured, change_json, predict, refusal
from safetensors.torch import load_file, save_file
from tiny_runs import overrides

from hfbench.cli import main
from hfbench.config import RunConfig, load_config
from hfbench.data.splits import load_splits
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.tasks import make_task

SOURCES = {
    "text": ("tiny_bert", "texts"),
    "image": ("tiny_vit", "images"),
    "audio": ("tiny_wav2vec2", "sounds"),
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Trained = Callable[[str, str], tuple[Path, RunConfig]]


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Folder and configuration of a tiny run of one kind and strategy, trained once."""
    kept: dict[tuple[str, str], tuple[Path, RunConfig]] = {}

    def train(kind: str, strategy: str) -> tuple[Path, RunConfig]:
        if (kind, strategy) not in kept:
            checkpoint, data = (request.getfixturevalue(name) for name in SOURCES[kind])
            folder = tmp_path_factory.mktemp("runs") / f"{kind}_{strategy}"
            # Cutting matters: the longer texts have 6 tokens, the clips 0.1 seconds.
            cuts = ["data.max_length=4", "data.max_seconds=0.06", "data.test_fraction=0.25"]
            arguments = overrides(checkpoint, data, folder, f"strategy={strategy}", *cuts)
            config = load_config(None, arguments, task=f"{kind}_classification")
            run(config)
            kept[kind, strategy] = folder, config
        return kept[kind, strategy]

    return train


@pytest.fixture
def text_model(trained: Trained, tmp_path: Path) -> Path:
    """A copy of a saved text model without the record of its training."""
    return Path(shutil.copytree(trained("text", "full")[0] / "model", tmp_path / "saved"))


@pytest.fixture
def text_adapter(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained("text", "lora")[0] / "model", tmp_path / "adapter"))


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


# ---- the same as in training


@pytest.mark.parametrize("strategy", ["full", "lora"])
@pytest.mark.parametrize("kind", list(SOURCES))
def test_predictions_are_those_of_the_runs_own_evaluation(
    kind: str, strategy: str, trained: Trained, capsys: Captured
) -> None:
    folder, config = trained(kind, strategy)
    task = make_task(config)
    data = task.prepare_data()
    batch = task.collate([data.test[i] for i in range(len(data.test))])
    with torch.no_grad():
        logits = load_model(folder / "model")(**batch).logits.numpy()
    expected = softmax(logits)
    column = load_splits(config.data, kind).test[kind][:]  # type: ignore[arg-type]

    found = predict(capsys, folder, *column, "--top", "2")
    assert len(found) == len(data.test) >= 10
    assert [row["input"] for row in found] == column
    names = np.array(data.label_names)
    assert [row["label"] for row in found] == names[logits.argmax(axis=-1)].tolist()
    for row, own in zip(found, expected, strict=True):
        given = {top["label"]: top["probability"] for top in row["top"]}
        np.testing.assert_allclose([given[name] for name in names], own, atol=1e-6)
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}
        assert row["probability"] == max(given.values())

    right = [row["label"] for row in found] == names[batch["labels"].numpy()]
    accuracy = RunResult.load(folder / "result.json").test_metrics["accuracy"]
    assert right.mean() == pytest.approx(accuracy)


def test_the_model_inside_a_run_is_preprocessed_as_the_run(
    trained: Trained, text_model: Path, capsys: Captured
) -> None:
    """The folder alone knows no max_length of 4, so nothing is cut there; it says so."""
    folder, _ = trained("text", "full")
    cut, whole = "bad dog sleeps", "bad dog sleeps seven times"
    of_run, of_model = (predict(capsys, place, cut, whole) for place in (folder, folder / "model"))
    assert of_run == of_model
    assert of_run[0]["probability"] == pytest.approx(of_run[1]["probability"])
    alone = predict(capsys, text_model, cut, whole)
    assert alone[0]["probability"] != pytest.approx(alone[1]["probability"], abs=1e-6)

    assert main(["predict", str(text_model), cut]) == 0
    told = "assumed, as there is no result.json: text_classification, data.max_length=512"
    assert told in capsys.readouterr().err
    assert main(["predict", str(folder), cut]) == 0
    assert "preprocessing: as in training, data.max_length=4" in capsys.readouterr().err


def test_a_long_list_keeps_its_order_whatever_the_batches(
    trained: Trained, text_model: Path, capsys: Captured, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "cat", "dog", "sleeps", "sings", "one", "two", "three", "the"])
    texts = [" ".join(rng.choice(words, size=rng.integers(1, 20))) for _ in range(100)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    found = predict(capsys, text_model, tmp_path / "texts.txt", "--batch-size", "7")
    assert [row["input"] for row in found] == texts
    (tmp_path / "reversed.txt").write_text("\n".join(reversed(texts)))
    alone = predict(capsys, text_model, tmp_path / "reversed.txt", "--batch-size", "1")
    np.testing.assert_allclose(
        [row["probability"] for row in found],
        [row["probability"] for row in reversed(alone)],
        atol=1e-6,
    )
    assert len({row["probability"] for row in found}) > 50


def test_a_folder_of_images_is_read_in_the_order_of_its_paths(
    trained: Trained, images: Path, capsys: Captured
) -> None:
    folder, _ = trained("image", "full")
    found = predict(capsys, folder, images, "--batch-size", "3")
    paths = sorted(str(path) for path in images.rglob("*.png"))
    assert [row["input"] for row in found] == paths
    one_by_one = [predict(capsys, folder, path)[0] for path in (paths[0], paths[-1])]
    for row, alone in zip((found[0], found[-1]), one_by_one, strict=True):
        assert row["label"] == alone["label"]
        assert row["probability"] == pytest.approx(alone["probability"], abs=1e-6)


def test_a_table_is_read_from_the_column_of_the_training(
    trained: Trained, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = trained("text", "full")
    texts = ["good cat 1", "bad dog, asleep"]
    table = tmp_path / "new.csv"
    table.write_text('comment,text\nx,good cat 1\ny,"bad dog, asleep"\n')
    assert predict(capsys, folder, table) == predict(capsys, folder, *texts)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    assert predict(capsys, folder, "-") == predict(capsys, folder, *texts)
    assert [row["input"] for row in predict(capsys, folder, table, "--text-column=comment")] == [
        "x",
        "y",
    ]


# ---- what is printed


def test_table_csv_and_json_say_the_same(
    trained: Trained, capsys: Captured, tmp_path: Path
) -> None:
    folder, _ = trained("text", "lora")
    capsys.readouterr()  # of the training, where no other test has asked for it
    arguments = ["predict", str(folder), "good cat", "bad dog", "--top", "5"]  # of 2 labels
    written = {}
    for style in ("table", "csv", "json"):
        assert main([*arguments, "--format", style]) == 0
        captured = capsys.readouterr()
        written[style] = captured.out
        assert f"model: {folder} (BertForSequenceClassification), adapter of /" in captured.err
    values = json.loads(written["json"])
    assert values["model"] == str(folder)
    assert values["task"] == "text_classification"
    assert values["revision"] is None
    assert values["notes"][1] == "preprocessing: as in training, data.max_length=4"
    lines = written["table"].splitlines()
    assert lines[0].split() == ["input", "label", "probability"]
    shown = [line.split() for line in lines[2:]]
    read = list(csv.DictReader(io.StringIO(written["csv"])))
    assert list(read[0]) == ["input", "label", "probability", "label_2", "probability_2"]
    for number, row in enumerate(values["predictions"]):
        assert {row["label"], row["top"][1]["label"]} == {"up", "down"}
        assert sum(top["probability"] for top in row["top"]) == pytest.approx(1)
        first, second = row["top"]
        assert read[number] == {
            "input": row["input"],
            "label": first["label"],
            "probability": str(first["probability"]),
            "label_2": second["label"],
            "probability_2": str(second["probability"]),
        }
        rounded = [[top["label"], f"{top['probability']:.4f}"] for top in row["top"]]
        assert shown[2 * number] == [*row["input"].split(), *rounded[0]]
        assert shown[2 * number + 1] == rounded[1]

    for ending, style in ((".csv", "csv"), (".json", "json"), (".txt", "table")):
        output = tmp_path / "new" / f"found{ending}"
        assert main([*arguments, "--output", str(output)]) == 0
        assert output.read_text() == written[style]
        assert capsys.readouterr().out == f"predictions: {output}\n"


# ---- repositories


@pytest.fixture
def cached_repository(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of ``owner/name`` as the hub's client left it when the hub could be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub/models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    folder, _ = trained("text", "lora")
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder / "model", snapshot)
    shutil.copy(folder / "result.json", snapshot)
    return snapshot


def test_a_repository_answers_as_the_run_and_its_commit_is_named(
    trained: Trained, cached_repository: Path, capsys: Captured
) -> None:
    folder, _ = trained("text", "lora")
    texts = ["good cat", "bad dog sleeps seven times"]
    assert main(["predict", "owner/name", *texts, "--format", "json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["predictions"] == predict(capsys, folder, *texts)
    assert found["revision"] == COMMIT
    assert f"model: owner/name, revision {COMMIT}" in captured.err
    assert predict(capsys, "owner/name", *texts, "--revision", COMMIT) == found["predictions"]


def test_a_repository_without_safetensors_is_refused(
    cached_repository: Path, capsys: Captured
) -> None:
    weights = cached_repository / "adapter_model.safetensors"
    torch.save(load_file(weights), cached_repository / "adapter_model.bin")
    weights.unlink()
    error = refusal(capsys, "owner/name", "good")
    assert "repository 'owner/name' has no safetensors weights. Pickle files are not" in error


def test_a_hub_that_does_not_answer_is_exit_code_3(
    cached_repository: Path, capsys: Captured
) -> None:
    error = refusal(capsys, "owner/other", "good", code=3)
    assert "trained model 'owner/other' is not on this machine" in error
    assert "'owner/name'" in refusal(capsys, "owner/name", "a", "--revision", "v2", code=3)


def test_what_was_pushed_answers_as_the_run(
    hub: LoopbackHub, trained: Trained, tmp_path: Path, capsys: Captured
) -> None:
    """Through the real client, in a process without the run: an adapter merged for the push."""
    folder = tmp_path / "run"
    shutil.copytree(trained("text", "lora")[0], folder)
    texts = ["good cat", "bad dog sleeps seven times"]
    with online_process(hub.environment(tmp_path / "home")) as pool:
        user = User(pool, [])
        settings = ("hub.repo_id=alice/texts", "hub.adapter_only=false")
        pushed = user.hfbench("push", str(folder), *settings, token=ACCOUNTS[0].token)
        assert pushed.returncode == 0, pushed.stderr
        done = user.hfbench("predict", "alice/texts", *texts, "--format", "json", token=None)
        unknown = user.hfbench("predict", "alice/texts", "a", "--revision", "v2", token=None)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert f"(commit {found['revision'][:12]})" in pushed.stdout
    assert f"model: alice/texts, revision {found['revision']} (BertFor" in done.stderr
    assert found["notes"][1] == "preprocessing: as in training, data.max_length=4"
    for row, own in zip(found["predictions"], predict(capsys, folder, *texts), strict=True):
        assert (row["input"], row["label"]) == (own["input"], own["label"])
        assert row["probability"] == pytest.approx(own["probability"], abs=1e-6)
    assert unknown.returncode == 2
    assert "'alice/texts' has no such revision: change --revision" in unknown.stderr


# ---- models that cannot be used


def test_a_place_without_a_model_is_named(
    trained: Trained, tmp_path: Path, tiny_bert: Path, capsys: Captured
) -> None:
    folder, _ = trained("text", "full")
    failed = tmp_path / "failed"
    failed.mkdir()
    finished = RunResult.load(folder / "result.json")
    replace(finished, status="failed", reason="killed").save(failed / "result.json")
    several = tmp_path / "several"
    shutil.copytree(folder, several / "full_seed0")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    cases = {
        str(tmp_path / "broken"): "is not a JSON file",
        str(failed): "is a run without a model: failed, killed. Repeat its command",
        str(several): f"holds several runs; give one of {several / 'full_seed0'}",
        str(tmp_path / "empty"): "holds neither a run (result.json and model/) nor a model",
        str(folder / "result.json"): "is a file; give the folder of a run",
        "/nowhere/at/all": "RUN_OR_REPO='/nowhere/at/all' does not exist",
        "bundled/bert-tiny": "is a BertForMaskedLM: it has no trained head for a task of hfbench",
        str(tiny_bert): "is a BertModel: it has no trained head",
        "bundled/none": "is not bundled",
    }
    for place, message in cases.items():
        assert message in refusal(capsys, place, "good")
    assert "is on the disk" in refusal(capsys, folder, "good", "--revision", "main")


def test_a_model_with_code_of_its_own_is_refused_by_name(
    text_model: Path, capsys: Captured
) -> None:
    (text_model / "own.py").write_text("raise AssertionError('was run')")
    code = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.Own"}
    change_json(text_model / "config.json", model_type="own", auto_map=code)
    error = refusal(capsys, text_model, "good")
    assert "needs code from its repository (own.OwnConfig, own.Own), and hfbench never" in error
    change_json(text_model / "config.json", model_type="bert", architectures=["OwnNet"])
    assert "needs code" in refusal(capsys, text_model, "good")
    change_json(text_model / "config.json", auto_map={})
    error = refusal(capsys, text_model, "good")
    assert "names the model type 'bert' and the class 'OwnNet', which transformers" in error


def test_pickled_weights_are_refused(
    text_model: Path, text_adapter: Path, capsys: Captured
) -> None:
    for folder, name in ((text_model, "model"), (text_adapter, "adapter_model")):
        weights = load_file(folder / f"{name}.safetensors")
        (folder / f"{name}.safetensors").unlink()
        torch.save(weights, folder / f"{'pytorch_' * (name == 'model')}{name}.bin")
    assert "has no safetensors weights" in refusal(capsys, text_model, "good")
    assert "has no adapter_model.safetensors" in refusal(capsys, text_adapter, "good")


def test_a_head_that_was_not_saved_is_not_replaced_by_random_numbers(
    text_model: Path, text_adapter: Path, capsys: Captured
) -> None:
    for file in (text_model / "model.safetensors", text_adapter / "adapter_model.safetensors"):
        weights = load_file(file)
        kept = {key: value for key, value in weights.items() if "classifier.bias" not in key}
        assert len(kept) == len(weights) - 1
        save_file(kept, file, {"format": "pt"})
        assert "lacks trained weights" in (error := refusal(capsys, file.parent, "good"))
        assert error.endswith("classifier.bias")


def test_adapters_that_miss_something(
    text_adapter: Path, tiny_bert: Path, tmp_path: Path, capsys: Captured
) -> None:
    gone = tmp_path / "gone"
    change_json(text_adapter / "adapter_config.json", base_model_name_or_path=str(gone))
    assert f"needs its base {str(gone)!r}, which is not" in refusal(capsys, text_adapter, "good")
    (text_adapter / "config.json").rename(tmp_path / "config.json")
    assert "is an adapter without config.json" in refusal(capsys, text_adapter, "good")
    (tmp_path / "config.json").rename(text_adapter / "config.json")
    (text_adapter / "adapter_config.json").write_text("{")
    assert "describes no adapter" in refusal(capsys, text_adapter, "good")


def test_outputs_of_an_unknown_meaning_are_refused(text_model: Path, capsys: Captured) -> None:
    change_json(text_model / "config.json", problem_type="regression")
    error = refusal(capsys, text_model, "good")
    assert "the model does regression with 2 outputs" in error


def test_wrong_inputs_and_outputs_end_before_the_weights_are_loaded(
    trained: Trained, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(folder: Path) -> None:
        raise AssertionError(folder)

    text, image = trained("text", "full")[0], trained("image", "full")[0]
    monkeypatch.setattr("hfbench.trained.load_model", load)
    (tmp_path / "clip.wav").write_bytes(b"")
    error = refusal(capsys, image, tmp_path / "clip.wav")
    assert "clip.wav' is a recording, and this model reads images: give files (.png" in error
    assert "does not exist" in refusal(capsys, text, "reviews.csv")
    assert "is a folder: give a file" in refusal(capsys, text, "good", "--output", tmp_path)
    assert "--output" in refusal(capsys, text, "good", "--output", tmp_path / "clip.wav/x.csv")
    for option in ("--top", "--batch-size"):
        with pytest.raises(SystemExit) as stopped:
            main(["predict", str(text), "good", option, "0"])
        assert stopped.value.code == 2


@pytest.mark.parametrize(("kind", "name"), [("image", "broken.png"), ("audio", "broken.wav")])
def test_a_broken_file_is_named(
    kind: str, name: str, trained: Trained, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / name).write_bytes(b"broken")
    error = refusal(capsys, trained(kind, "full")[0], tmp_path)
    assert f"({tmp_path / name}) is not a readable" in error
