"""Speech recognition: its model and whole runs on tiny networks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from speech_tasks import changed_row, config_of, task_of
from spoken_tones import spoken

from hfbench.cli import main
from hfbench.config import load_config
from hfbench.errors import UserError
from hfbench.models.loading import load_model as load_weights
from hfbench.report.model_card import model_card
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import load_model

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("own_folders")


# ---- the model


def test_the_loss_is_the_mean_of_each_samples_loss_by_its_tokens(
    tiny_hubert: Path, speech: Path
) -> None:
    task = task_of(config_of(tiny_hubert, speech))
    data = task.prepare_data()
    torch.manual_seed(0)
    built = task.build_model(data)
    assert built.new_parameters == {"lm_head.weight", "lm_head.bias"}
    settings: Any = built.model.config
    assert (settings.ctc_loss_reduction, settings.ctc_zero_infinity) == ("mean", False)
    model = built.model.eval()
    samples = [data.train[index] for index in range(3)]
    losses = []
    for sample in samples:
        batch = task.collate([sample])
        tokens = batch["labels"][0]
        log_probabilities = model(**batch).logits.log_softmax(-1).transpose(0, 1)
        frames = log_probabilities.shape[0]
        total = torch.nn.functional.ctc_loss(
            log_probabilities, tokens[None], (frames,), (len(tokens),), reduction="sum"
        )
        losses.append(total / len(tokens))
    batch = task.collate(samples)
    torch.testing.assert_close(model(**batch).loss, torch.stack(losses).mean())
    assert task.loss_units(batch) == 3


@pytest.mark.parametrize("checkpoint", ["tiny_wav2vec2", "tiny_hubert"])
def test_answers_do_not_depend_on_the_other_samples_of_a_batch(
    checkpoint: str, speech: Path, request: pytest.FixtureRequest
) -> None:
    task = task_of(config_of(request.getfixturevalue(checkpoint), speech, "decoding.beams=3"))
    data = task.prepare_data()
    torch.manual_seed(0)
    model = task.build_model(data).model.eval()
    samples = [data.train[index] for index in range(6)]
    with torch.no_grad():
        together = task.answer(model, task.collate(samples), 2)
        alone = [task.answer(model, task.collate([sample]), 2)[0] for sample in samples]
    assert any(candidates[0].text for candidates in alone)
    for one, other in zip(together, alone, strict=True):
        assert [c.text for c in one] == [c.text for c in other]
        assert [c.probability for c in one] == pytest.approx(
            [c.probability for c in other], rel=1e-3
        )


def test_lengths_come_from_headers_and_group_what_is_masked(
    tiny_hubert: Path, tiny_wav2vec2: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfbench.data.media.MEMORY_LIMIT_BYTES", 1)  # nothing stays decoded
    task = task_of(config_of(tiny_hubert, speech))
    data = task.prepare_data()
    assert task.sample_lengths(data.train)[:3] == [2400, 2400, 4800]  # 0.15 s a letter
    assert task.collate([data.train[0], data.train[2]])["input_values"].shape == (2, 4800)
    padded = task_of(config_of(tiny_wav2vec2, speech))
    assert padded.sample_lengths(padded.prepare_data().train) is None


# ---- whole runs


@pytest.mark.parametrize("strategy", ["full", "head", "last_1", "lora", "scratch"])
def test_every_strategy_trains_saves_and_loads(
    strategy: str, tiny_wav2vec2: Path, speech: Path, tmp_path: Path
) -> None:
    config = config_of(
        tiny_wav2vec2, speech, f"strategy={strategy}", f"output_dir={tmp_path / 'run'}"
    )
    result = run(config)  # compares the saved model's logits with the trained one's, bit for bit
    assert (result.primary_metric, result.greater_is_better) == ("wer", False)
    assert result.steps == 2
    assert set(result.test_metrics) == {"loss", "wer", "cer"}
    assert result.predicted is not None
    assert result.parameters is not None
    assert result.parameters.trainable >= 5 * 32 + 5  # the layer over five tokens
    task = task_of(config)
    data = task.prepare_data()
    model = load_model(tmp_path / "run/model")
    batch = task.collate([data.test[index] for index in range(len(data.test))])
    with torch.no_grad():
        found = task.compute_metrics(
            task.predictions(model(**batch), batch).numpy(), batch["labels"].numpy()
        )
    assert found["wer"] == result.test_metrics["wer"]
    start = load_weights(config.model, model.config, task.model_class).model
    name = "wav2vec2.feature_extractor.conv_layers.0.conv.weight"
    trained = {k.removeprefix("base_model.model."): v for k, v in model.state_dict().items()}[name]
    assert torch.equal(trained, start.state_dict()[name]) == (
        strategy in ("head", "last_1", "lora")
    )


def test_a_stored_prefix_changes_no_number(tiny_hubert: Path, speech: Path, tmp_path: Path) -> None:
    settings = ["strategy=head", "training.max_steps=10", "training.epochs=3"]
    results = [
        run(
            config_of(
                tiny_hubert, speech, *settings, f"cache={how}", f"output_dir={tmp_path / how}"
            )
        )
        for how in ("always", "off")
    ]
    assert results[0].prefix is not None
    assert results[0].prefix.place == "backbone"
    assert results[1].prefix is None
    losses = [[record.train_loss for record in result.history] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.fixture(scope="session")
def learnt(
    tiny_hubert: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    """A run that has learnt what the two tones are called."""
    folder = tmp_path_factory.mktemp("learnt") / "run"
    config = config_of(
        tiny_hubert,
        speech,
        "training.max_steps=320",
        "training.epochs=64",
        "training.learning_rate=5e-3",
        f"output_dir={folder}",
    )
    return folder, run(config)


def test_a_network_learns_to_write_and_writes_down_a_file(
    learnt: tuple[Path, RunResult], speech: Path, capsys: Captured
) -> None:
    folder, result = learnt
    assert result.test_metrics["wer"] <= 0.2
    capsys.readouterr()
    assert main(["predict", str(folder), str(speech / "test3.wav")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split() == ["input", "transcript"]
    assert printed.out.splitlines()[2].endswith(" b a")
    assert main(["predict", str(folder), "--top", "3", "--format", "json", str(speech)]) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]
    assert len(rows) == 49
    probabilities = [one["probability"] for one in rows[0]["top"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)


def test_what_is_no_recording_is_refused(
    learnt: tuple[Path, RunResult], speech: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["predict", str(learnt[0]), str(speech / "test.jsonl")]) == 2
    assert "this model reads recordings" in capsys.readouterr().err
    soundfile.write(tmp_path / "long.wav", spoken("a b a"), 16000)
    assert main(["predict", str(learnt[0]), str(tmp_path / "long.wav")]) == 2
    assert "a recording of 0.45 s, longer than data.max_seconds=0.4" in capsys.readouterr().err


def test_a_checkpoint_keeps_its_own_vocabulary_and_head(
    learnt: tuple[Path, RunResult], speech: Path, tmp_path: Path
) -> None:
    folder = changed_row(speech, tmp_path, "train", 0, transcript="c")
    task = task_of(config_of(learnt[0] / "model", folder))
    data = task.prepare_data()
    assert data.summary["notes"][0] == "vocabulary: 5 tokens, the checkpoint's"
    assert data.summary["notes"][2] == (
        "1 characters of train (1.19 %) are not in the vocabulary and count as errors: c 1"
    )
    assert task.build_model(data).new_parameters == set()


def test_the_program_of_the_card_writes_what_predict_writes(
    learnt: tuple[Path, RunResult], speech: Path
) -> None:
    folder, result = learnt
    card = model_card(result, repo_id="you/tones", contents="model", local=[str(speech)])
    assert "pipeline_tag: automatic-speech-recognition" in card
    [program] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    program = re.sub("^MODEL = .*$", f"MODEL = {str(folder / 'model')!r}", program, flags=re.M)
    program = re.sub("^FILE = .*$", f"FILE = {str(speech / 'test3.wav')!r}", program, flags=re.M)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "transcript: b a"


def test_beams_belong_to_speech() -> None:
    with pytest.raises(UserError, match=r"decoding.beams=2 belongs to speech_recognition"):
        load_config(None, ["decoding.beams=2"], task="text_classification")
    with pytest.raises(UserError, match=r"decoding.beams"):
        load_config(None, ["decoding.beams=0"], task="speech_recognition")


def test_a_network_of_spectrograms_is_refused(speech: Path, tmp_path: Path) -> None:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig

    Wav2Vec2BertConfig().save_pretrained(tmp_path)
    SeamlessM4TFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="speech recognition is for networks that read waveforms"):
        task_of(config_of(tmp_path, speech)).prepare_data()


def test_a_head_without_outputs_for_added_tokens_is_kept(
    learnt: tuple[Path, RunResult], speech: Path, tmp_path: Path
) -> None:
    """Fine-tuned XLSR checkpoints have tokens for the ends of sentences behind the vocabulary."""
    shutil.copytree(learnt[0] / "model", tmp_path / "added")
    settings = tmp_path / "added/tokenizer_config.json"
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | ends))
    task = task_of(config_of(tmp_path / "added", speech))
    data = task.prepare_data()
    built = task.build_model(data)
    assert len(task.processor.tokenizer) == 7
    assert built.new_parameters == set()
    task.fit_to(built.model.config)
    built.model.config.vocab_size = 8
    with pytest.raises(UserError, match="8 outputs, blank 0, and its tokenizer 7 tokens, blank 0"):
        task.fit_to(built.model.config)
