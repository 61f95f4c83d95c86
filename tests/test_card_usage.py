"""The program in a model card runs by itself and answers what hfbench's own pipeline answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from card_results import with_config
from tiny_runs import overrides
from transformers import (
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from hfbench.config import RunConfig, load_config
from hfbench.data.splits import load_splits
from hfbench.report.model_card import model_card
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.tasks import make_task

# Enough for the tiny networks to answer either label, by more than the digits that are compared.
LEARNS = ("training.epochs=6", "training.learning_rate=1e-2")
ANSWER = re.compile(r"(\w+): ([01]\.\d{4})")
BASE_COMMIT, MODEL_COMMIT = "1" * 40, "2" * 40


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stereo at 22,050 Hz, shorter and longer than 0.1 s: all must be resampled, cut or padded."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for label, hertz in (("high", 2000), ("low", 200)):
        (folder / label).mkdir()
        for index in range(20):
            seconds = np.arange(int((0.07, 0.13)[index % 2] * 22050)) / 22050
            louder = np.linspace(0, 1, len(seconds)) ** 4  # the middle is not like the start
            wave = 0.3 * louder * np.sin(2 * np.pi * hertz * seconds)
            stereo = wave[:, None] + 0.01 * rng.normal(size=(len(wave), 2))
            soundfile.write(folder / label / f"{index}.wav", stereo, 22050)
    return folder


def program_of(card: str) -> str:
    found = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def replaced(program: str, **values: object) -> str:
    """The program with other values behind the names that whoever uses it replaces."""
    lines = program.split("\n")
    for name, value in values.items():
        [index] = [i for i, line in enumerate(lines) if line.startswith(f"{name} = ")]
        lines[index] = f"{name} = {value!r}"
    return "\n".join(lines)


def answers(*programs: str, **environment: str) -> list[tuple[str, float]]:
    """What each of the programs prints, run in one fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(programs)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return answers_in(done.stdout)


def answers_in(printed: str) -> list[tuple[str, float]]:
    lines = [ANSWER.fullmatch(line) for line in printed.splitlines()]
    return [(line[1], float(line[2])) for line in lines if line is not None]


def expected(config: RunConfig, folder: Path, index: int) -> tuple[str, Any]:
    """The saved model's answer on one test sample, prepared as it was for training.

    The probability is compared to the four digits that the program prints.
    """
    task = make_task(config)
    data = task.prepare_data()
    model: Any = load_model(folder)
    with torch.inference_mode():
        logits = model(**task.collate([data.test[index]])).logits[0]
    best = int(logits.argmax())
    probability = float(logits.softmax(dim=-1)[best])
    return data.label_names[best], pytest.approx(probability, abs=1e-4)


def raw_inputs(config: RunConfig, kind: str) -> list[Any]:
    """The texts or the paths of the test samples."""
    return list(load_splits(config.data, kind).test[kind][:])  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["last_1", "lora"])
@pytest.mark.parametrize(
    ("kind", "checkpoint", "data"),
    [
        ("text", "tiny_bert", "texts"),
        ("image", "tiny_vit", "images"),
        ("audio", "tiny_wav2vec2", "recordings"),
    ],
)
def test_the_program_runs_as_it_is_and_answers_as_the_trained_model_does(
    kind: str,
    checkpoint: str,
    data: str,
    strategy: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    base, folder = request.getfixturevalue(checkpoint), tmp_path / "run/model"
    arguments = overrides(
        base,
        request.getfixturevalue(data),
        tmp_path / "run",
        f"strategy={strategy}",
        "data.max_length=4",  # [CLS], two of the words, [SEP]
        *LEARNS,
        *(["strategy.learning_rate_factor=1"] if strategy == "lora" else []),
    )
    config = load_config(None, arguments, task=f"{kind}_classification")
    contents = "adapter" if strategy == "lora" else "model"
    card = model_card(run(config), repo_id="alice/tiny", contents=contents, local=())  # type: ignore[arg-type]
    where = {"MODEL": str(folder)} | ({"BASE": str(base)} if strategy == "lora" else {})
    example = replaced(program_of(card), **where)
    inputs = raw_inputs(config, kind)
    chosen = [0, len(inputs) - 1]
    name = "TEXT" if kind == "text" else "FILE"
    own = [replaced(example, **{name: inputs[index]}) for index in chosen]
    (label, probability), *rest = answers(example, *own)
    labels = set(json.loads((folder / "config.json").read_text())["label2id"])
    assert label in labels
    assert probability >= 0.5  # the larger one of two
    assert rest == [expected(config, folder, index) for index in chosen]
    assert {label for label, _ in rest} == labels


@pytest.fixture(scope="session")
def grey_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViTModel for one channel."""
    folder = tmp_path_factory.mktemp("grey_vit")
    config = ViTConfig(
        image_size=16,
        patch_size=8,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    ViTModel(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    ViTImageProcessor(size=size, image_mean=[0.5], image_std=[0.5]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def masked_wav2vec2(tiny_wav2vec2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wav2Vec2Model with layer norms, whose batches are masked and not padded to one length."""
    folder = tmp_path_factory.mktemp("masked_wav2vec2")
    config = Wav2Vec2Config.from_pretrained(tiny_wav2vec2, feat_extract_norm="layer")
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "checkpoint", "data"),
    [("image", "grey_vit", "images"), ("audio", "masked_wav2vec2", "recordings")],
)
def test_the_program_fits_the_network(
    kind: str,
    checkpoint: str,
    data: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = [request.getfixturevalue(name) for name in (checkpoint, data)]
    config = load_config(
        None, overrides(*sources, tmp_path / "run", *LEARNS), task=f"{kind}_classification"
    )
    card = model_card(run(config), repo_id="alice/tiny", contents="model", local=())
    folder, chosen = tmp_path / "run/model", range(4)
    inputs = raw_inputs(config, kind)
    capsys.readouterr()
    for index in chosen:
        exec(replaced(program_of(card), MODEL=str(folder), FILE=inputs[index]), {})
    printed = answers_in(capsys.readouterr().out)
    assert printed == [expected(config, folder, index) for index in chosen]
    assert len({label for label, _ in printed}) == 2


def test_pairs_of_texts_and_a_bundled_base_need_no_change(tmp_path: Path) -> None:
    rows = [
        {"sentence1": f"open the file {i}", "sentence2": f"read {i}", "label": "ab"[i % 2]}
        for i in range(40)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    arguments = overrides(Path("bundled/bert-tiny"), data, tmp_path / "run", "strategy=lora")
    config = load_config(None, [*arguments, "training.max_steps=2"], task="text_classification")
    card = model_card(run(config), repo_id="alice/tiny", contents="adapter", local=())
    assert "`bundled/bert-tiny`, comes with hfbench" in card
    folder = tmp_path / "run/model"
    splits = load_splits(config.data, "text")
    pair = (splits.test["text"][0], splits.test["text_pair"][0])
    program = replaced(program_of(card), MODEL=str(folder), TEXT=pair)
    assert answers(program) == [expected(config, folder, 0)]


def test_a_published_adapter_fetches_itself_and_its_base_at_their_revisions(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    """Not a letter of the program is changed; the Hub is its client's cache, laid out by hand."""
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "strategy=lora")
    config = load_config(None, arguments, task="text_classification")
    result = run(config)
    cache = tmp_path / "cache"
    published = snapshot(cache, "alice/tiny", MODEL_COMMIT, tmp_path / "run/model", branch="trial")
    snapshot(cache, "tiny/bert", BASE_COMMIT, tiny_bert, branch="old")
    adapter = json.loads((published / "adapter_config.json").read_text())
    adapter |= {"base_model_name_or_path": "tiny/bert", "revision": BASE_COMMIT}
    (published / "adapter_config.json").write_text(json.dumps(adapter))

    on_hub: RunResult = with_config(result, "model", checkpoint="tiny/bert", revision=BASE_COMMIT)
    card = model_card(on_hub, repo_id="alice/tiny", contents="adapter", revision="trial", local=())
    assert f"`tiny/bert` at revision `{BASE_COMMIT}`, is fetched" in card
    text = raw_inputs(config, "text")[0]
    program = program_of(card)
    found = answers(program, replaced(program, TEXT=text), HF_HUB_CACHE=str(cache))
    assert len(found) == 2
    assert found[1] == expected(config, tmp_path / "run/model", 0)


def snapshot(cache: Path, name: str, commit: str, files: Path, *, branch: str) -> Path:
    """A repository as the Hub's client keeps it after a download."""
    folder = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(files, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / branch).write_text(commit)
    return folder / "snapshots" / commit
