"""Vocabularies of speech checkpoints as they lie on the hub, and what their transcripts become."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import Wav2Vec2ForCTC

from hfbench.config import ModelConfig, load_config
from hfbench.data.transcripts import normalise
from hfbench.errors import HubUnreachableError, UserError
from hfbench.models.loading import load_config as load_model_config
from hfbench.models.loading import load_ctc_tokenizer
from hfbench.tasks import make_task
from hfbench.tasks.speech_recognition import SpeechRecognition


@pytest.fixture(autouse=True)
def _own_folders(own_cache: None) -> None:
    pass


def checkpoint_of(tiny_wav2vec2: Path, folder: Path, tokens: list[str]) -> Path:
    """With an output for each of ``tokens`` and a tokenizer_config.json that names no class."""
    shutil.copytree(tiny_wav2vec2, folder)
    settings = load_model_config(
        ModelConfig(checkpoint=str(tiny_wav2vec2)), vocab_size=len(tokens), pad_token_id=0
    )
    torch.manual_seed(0)
    Wav2Vec2ForCTC(settings).save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    return folder


def task_of(checkpoint: Path, speech: Path, *more: str) -> SpeechRecognition:
    sources = [f"model.checkpoint={checkpoint}", f"data.source={speech}", *more]
    task = make_task(load_config(None, sources, task="speech_recognition"))
    assert isinstance(task, SpeechRecognition)
    return task


SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "|"]


def test_a_vocabulary_without_a_named_tokenizer_is_used(
    tiny_wav2vec2: Path, speech: Path, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(tiny_wav2vec2, tmp_path / "ctc", [*SPECIALS, "E", "A", "B"])
    task = task_of(checkpoint, speech)
    data = task.prepare_data()
    assert data.summary["notes"][0] == "vocabulary: 8 tokens, the checkpoint's"
    assert "upper case" in data.summary["notes"][1]
    assert data.train[3]["labels"] == [7, 4, 6]  # b — a
    assert task.build_model(data).new_parameters == set()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("head", [None, "new", "reuse"])
def test_a_head_belongs_to_its_vocabulary(
    tiny_wav2vec2: Path, speech: Path, tmp_path: Path, named: bool, head: str | None
) -> None:
    """Without names of its outputs a head says nothing, though it has as many as are needed."""
    made = ["<pad>", "<unk>", "|", "a", "b"]  # as many as the transcripts' own vocabulary has
    checkpoint = checkpoint_of(tiny_wav2vec2, tmp_path / "ctc", made)
    if not named:
        (checkpoint / "vocab.json").unlink()
    task = task_of(checkpoint, speech, *([] if head is None else [f"model.head={head}"]))
    data = task.prepare_data()
    if head == "reuse" and not named:
        with pytest.raises(UserError, match=r"model\.head=reuse: .* has no vocabulary"):
            task.build_model(data)
        return
    built = task.build_model(data)
    stored = load_file(checkpoint / "model.safetensors")
    assert built.model.config.vocab_size == len(made)
    kept = named and head != "new"
    assert built.new_parameters == (set() if kept else {"lm_head.weight", "lm_head.bias"})
    given = torch.equal(built.model.get_parameter("lm_head.weight"), stored["lm_head.weight"])
    assert given == kept


def test_a_vocabulary_of_another_kind_is_none_of_transcripts(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gpt2"
    shutil.copytree(tiny_gpt2, folder)
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "vocab.json").write_text(json.dumps({"a": 0}))
    assert load_ctc_tokenizer(ModelConfig(checkpoint=str(folder))) is None


def test_without_an_unknown_token_unknown_characters_are_left_out(
    tiny_wav2vec2: Path, speech: Path, tmp_path: Path
) -> None:
    """The tokenizer numbers <unk> 4, and the network has outputs 0 to 3."""
    checkpoint = checkpoint_of(tiny_wav2vec2, tmp_path / "ctc", ["<pad>", "|", "A", "C"])
    data = {"audio": str(speech / "train4.wav"), "transcript": "a a"}
    rows: list[dict[str, Any]] = [data] * 9 + [{**data, "transcript": "ab"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = task_of(checkpoint, tmp_path / "rows.jsonl")
    splits = task.prepare_data()
    samples = [s[i] for s in (splits.train, splits.validation, splits.test) for i in range(len(s))]
    assert sorted(sample["labels"] for sample in samples) == [[2, -100, -100]] + [[2, 1, 2]] * 9
    note = "1 characters of train (4.35 %) are not in the vocabulary and are left out: B 1"
    assert note in splits.summary["notes"]
    rows[0] = {**data, "transcript": "bb"}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="without a transcript: of 'bb' nothing is left"):
        task_of(checkpoint, tmp_path / "rows.jsonl").prepare_data()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<unk>", "|", "A", "B"], r"no pad_token='<pad>' among the 4 outputs"),
        (["<pad>", "<unk>", "A", "B"], r"no word_delimiter_token='\|' among the 4 outputs"),
    ],
)
def test_blank_and_delimiter_need_an_output(
    tokens: list[str], message: str, tiny_wav2vec2: Path, speech: Path, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(tiny_wav2vec2, tmp_path / "ctc", tokens)
    with pytest.raises(UserError, match=message):
        task_of(checkpoint, speech).prepare_data()


def test_apostrophes_and_fractions_keep_their_words() -> None:
    text = "It\u00b4s ½ done, isn\u2019t it? \u0149 uur"
    assert normalise(text, case="lower", kept="'") == "it's 1 2 done isn't it 'n uur"


def test_a_file_that_is_known_to_be_absent_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the hub's client leaves it; the tests are offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--owner--name", "0" * 40
    source = ModelConfig(checkpoint="owner/name")
    for folder in ("refs", f"snapshots/{commit}", f".no_exist/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    with pytest.raises(HubUnreachableError):
        load_ctc_tokenizer(source)
    for name in ("tokenizer_config.json", "vocab.json"):
        (repository / ".no_exist" / commit / name).touch()
    assert load_ctc_tokenizer(source) is None
