"""Kept answers: quick, whole, and never of another question."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from counting import counts, write_config

from hfbench.answers import answers_folder
from hfbench.cli import main

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_repeated_question_does_not_load_torch(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="bert", num_hidden_layers=3)
    strategies = ["--strategies", "head,lora"]
    assert main(["params", str(tmp_path), *strategies]) == 0
    code = (
        "import sys; from hfbench.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'timm', 'datasets'} & set(sys.modules);"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "params", str(tmp_path), *strategies]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lora:r=8,targets=attention_qv" in done.stdout


def test_an_answer_belongs_to_one_question_and_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path, model_type="bert", num_hidden_layers=2)
    first = counts(path, "head")
    assert len(list(answers_folder().iterdir())) == 1
    moved = write_config(tmp_path / "copy", model_type="bert", num_hidden_layers=2)
    assert counts(moved, "head").strategies == first.strategies
    assert len(list(answers_folder().iterdir())) == 1  # the content counts, not the place
    write_config(tmp_path, model_type="bert", num_hidden_layers=3)
    assert counts(path, "head").strategies != first.strategies
    monkeypatch.setattr("hfbench.answers.versions", lambda: {"torch": "1.0"})
    counts(path, "head")
    assert len(list(answers_folder().iterdir())) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1, "answer": {}}', "\udcff"])
def test_a_broken_answer_is_computed_anew(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_config(tmp_path, model_type="bert", num_hidden_layers=2)
    first = counts(path, "head")
    (kept,) = answers_folder().iterdir()
    whole = kept.read_text()
    kept.write_bytes(text.encode(errors="surrogateescape"))
    assert counts(path, "head") == first
    assert "is broken" in caplog.text
    assert kept.read_text() == whole


def test_an_answer_with_another_number_is_computed_anew(tmp_path: Path) -> None:
    path = write_config(tmp_path, model_type="bert", num_hidden_layers=2)
    first = counts(path, "head")
    (kept,) = answers_folder().iterdir()
    values = json.loads(kept.read_text())
    values["answer"]["strategies"][0]["report"]["total"] += 1
    kept.write_text(json.dumps(values))
    assert counts(path, "head") == first


def test_an_answer_of_another_form_is_computed_anew(tmp_path: Path) -> None:
    path = write_config(tmp_path, model_type="bert", num_hidden_layers=2)
    first = counts(path, "head")
    (kept,) = answers_folder().iterdir()
    values = json.loads(kept.read_text())
    del values["answer"]["strategies"][0]["report"]["total"]
    kept.write_text(json.dumps(values))
    assert counts(path, "head") == first


def test_without_a_place_for_answers_the_count_is_still_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert counts("gpt2", "head").strategies[0].report.trainable == 1536
    assert "answers are not kept" in capsys.readouterr().err
