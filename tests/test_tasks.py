"""The three classification tasks on tiny checkpoints; more of texts and of images."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classification_tasks import config, logits_of
from datasets import Dataset
from PIL import Image

from hfbench.config import ModelConfig, RunConfig, StrategyConfig
from hfbench.errors import UserError
from hfbench.models.loading import load_image_processor
from hfbench.tasks import TASKS, make_task

WORDS = ("the film was very good", "a dull book", "one two three four five", "bad", "the cat sings")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.json"
    rows = [{"text": WORDS[i % 5], "label": ("no", "yes")[i % 2]} for i in range(60)]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(20):
            pixels = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            image = Image.fromarray(pixels if i % 2 else pixels[..., 0])  # colour and grey
            image.save(root / label / f"{i:02}.png")
    return root


@pytest.fixture(scope="module", params=[name for name in TASKS if name.endswith("_classification")])
def case(request: pytest.FixtureRequest) -> RunConfig:
    """The configuration of each task in turn."""
    fixtures = {
        "text_classification": ("tiny_bert", "texts"),
        "image_classification": ("tiny_vit", "images"),
        "audio_classification": ("tiny_wav2vec2", "clips"),
    }
    checkpoint, source = (request.getfixturevalue(name) for name in fixtures[request.param])
    return config(request.param, checkpoint, source)


# ---- the contract


def test_each_task_gives_features_a_model_and_metrics(case: RunConfig, tmp_path: Path) -> None:
    task = make_task(case)
    data = task.prepare_data()
    built = task.build_model(data)
    batch = task.collate([data.train[i] for i in range(5)])
    outputs = built.model(**batch)
    assert outputs.loss.requires_grad
    logits = task.predictions(outputs, batch)
    assert (logits.shape, logits.dtype) == ((5, 2), torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"])
    torch.testing.assert_close(outputs.loss.detach(), expected)
    assert task.loss_units(batch) == 5
    metrics = task.compute_metrics(logits.numpy(), batch["labels"].numpy())
    accuracy = (logits.argmax(-1) == batch["labels"]).float().mean().item()
    assert metrics[task.primary_metric] == pytest.approx(accuracy)
    task.save_processor(tmp_path)
    assert list(tmp_path.glob("*.json"))
    lengths = task.sample_lengths(data.train)
    assert lengths is None or len(lengths) == len(data.train)


def test_logits_do_not_depend_on_the_other_samples_of_a_batch(case: RunConfig) -> None:
    task = make_task(case)
    data = task.prepare_data()
    torch.manual_seed(0)
    model = task.build_model(data).model
    samples = [data.train[i] for i in range(0, 30, 3)]
    lengths = {len(next(v for k, v in s.items() if k != "labels")) for s in samples}
    assert case.task == "image_classification" or len(lengths) > 2
    together = logits_of(task, model, samples)
    alone = torch.cat([logits_of(task, model, [sample]) for sample in samples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_samples_are_the_same_on_every_access(case: RunConfig) -> None:
    data = make_task(case).prepare_data()
    first, again = data.train[3], make_task(case).prepare_data().train[3]
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_only_the_head_is_new_and_labels_are_in_the_config(case: RunConfig) -> None:
    task = make_task(case)
    data = task.prepare_data()
    built = task.build_model(data)
    heads = {
        "text_classification": {"classifier"},
        "image_classification": {"classifier"},
        "audio_classification": {"projector", "classifier"},
    }[case.task]
    expected = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert built.new_parameters == expected
    settings: Any = built.model.config
    assert settings.id2label == dict(enumerate(data.label_names))
    assert {p.dtype for p in built.model.parameters()} == {torch.float32}
    assert getattr(settings, "layerdrop", 0.0) == 0.0


def test_scratch_has_the_same_network_and_everything_new(case: RunConfig) -> None:
    scratch = RunConfig(**{**vars(case), "strategy": StrategyConfig(name="scratch")})
    task = make_task(scratch)
    data = task.prepare_data()
    built = task.build_model(data)
    pretrained = make_task(case)
    given = pretrained.build_model(pretrained.prepare_data()).model
    shapes = {name: p.shape for name, p in given.named_parameters()}
    assert {name: p.shape for name, p in built.model.named_parameters()} == shapes
    assert built.new_parameters == shapes.keys()


def test_counting_on_the_meta_device_needs_no_memory(case: RunConfig) -> None:
    task = make_task(case)
    model = task.build_on_meta(num_labels=2)
    built = task.build_model(task.prepare_data()).model
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in built.parameters())
    assert "meta" in {p.device.type for p in model.parameters()}


def test_loading_prints_nothing(case: RunConfig, capfd: pytest.CaptureFixture[str]) -> None:
    task = make_task(case)
    task.build_model(task.prepare_data())
    assert capfd.readouterr() == ("", "")


def test_an_unknown_task_is_an_error_that_lists_the_tasks() -> None:
    with pytest.raises(UserError, match=r"'texts' is unknown; choose: text_classification, image"):
        make_task(RunConfig(task="texts"))


# ---- text


def test_texts_are_cut_to_max_length_and_padded_to_the_longest(
    tiny_bert: Path, texts: Path
) -> None:
    task = make_task(config("text_classification", tiny_bert, texts, max_length=5))
    data = task.prepare_data()
    by_length = {len(data.train[i]["input_ids"]): data.train[i] for i in range(len(data.train))}
    assert set(by_length) == {3, 5}  # [CLS] bad [SEP]; the others are cut
    batch = task.collate([by_length[3], by_length[5]])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["input_ids"].dtype == torch.int64


def test_max_length_never_exceeds_what_the_model_takes(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"text": "good " * 200, "label": i % 2} for i in range(40)]
    (tmp_path / "long.json").write_text(json.dumps(rows))
    task = make_task(config("text_classification", tiny_bert, tmp_path / "long.json"))
    assert len(task.prepare_data().train[0]["input_ids"]) == 64


@pytest.mark.parametrize(("padding_index", "expected"), [(1, 18), (3, 16)])
def test_positions_behind_the_padding_index_do_not_count(
    tiny_bert: Path, tmp_path: Path, padding_index: int, expected: int
) -> None:
    from transformers import BertTokenizer, RobertaConfig, RobertaModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good"]
    words[0], words[padding_index] = words[padding_index], words[0]
    settings = RobertaConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        pad_token_id=padding_index,
    )
    RobertaModel(settings).save_pretrained(tmp_path)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path)
    rows = [{"text": "good " * 200, "label": i % 2} for i in range(40)]
    (tmp_path / "long.json").write_text(json.dumps(rows))
    task = make_task(config("text_classification", tmp_path, tmp_path / "long.json"))
    data = task.prepare_data()
    assert len(data.train[0]["input_ids"]) == expected
    assert logits_of(task, task.build_model(data).model, [data.train[0]]).shape == (1, 2)


def test_a_model_that_states_no_number_of_positions_has_no_limit(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    from transformers import BertTokenizer, XLNetConfig, XLNetModel

    tokenizer = BertTokenizer.from_pretrained(tiny_bert)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path)
    settings = XLNetConfig(vocab_size=len(tokenizer), d_model=16, n_layer=1, n_head=2, d_inner=16)
    assert settings.max_position_embeddings == -1
    XLNetModel(settings).save_pretrained(tmp_path)
    task = make_task(config("text_classification", tmp_path, texts, max_length=5))
    data = task.prepare_data()
    assert {len(data.train[i]["input_ids"]) for i in range(len(data.train))} == {3, 5}


def test_pairs_of_texts_are_told_apart(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"premise": "the cat", "hypothesis": "a dog", "label": i % 2} for i in range(40)]
    Dataset.from_list(rows).to_parquet(tmp_path / "pairs.parquet")
    task = make_task(config("text_classification", tiny_bert, tmp_path / "pairs.parquet"))
    sample = task.prepare_data().train[0]
    assert sample["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]  # [CLS] the cat [SEP] a dog [SEP]


def test_a_model_without_padding_token_pads_with_its_end_token(tmp_path: Path, texts: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    words = sorted({word for line in WORDS for word in line.split()})
    vocabulary = {word: i for i, word in enumerate(["<|endoftext|>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    ).save_pretrained(tmp_path)
    GPT2Model(
        GPT2Config(vocab_size=len(vocabulary), n_embd=16, n_layer=1, n_head=2, n_positions=32)
    ).save_pretrained(tmp_path)
    task = make_task(config("text_classification", tmp_path, texts))
    data = task.prepare_data()
    built = task.build_model(data)
    settings: Any = built.model.config
    assert settings.pad_token_id == 0
    assert built.new_parameters == {"score.weight"}
    samples = [data.train[i] for i in range(5)]
    together = logits_of(task, built.model, samples)
    alone = torch.cat([logits_of(task, built.model, [sample]) for sample in samples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


# ---- images


@pytest.mark.parametrize("options", [{}, {"do_normalize": False}, {"image_mean": [0.1, 0.5, 0.9]}])
def test_a_batch_of_images_equals_the_output_of_the_processor(
    tiny_vit: Path, images: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    checkpoint = tmp_path / "vit"
    shutil.copytree(tiny_vit, checkpoint)
    processor = load_image_processor(ModelConfig(checkpoint=str(tiny_vit)))
    for key, value in options.items():
        setattr(processor, key, value)
    processor.save_pretrained(checkpoint)
    task: Any = make_task(config("image_classification", checkpoint, images))
    data = task.prepare_data()
    found = task.collate([data.train[i] for i in range(len(data.train))])["pixel_values"]
    files = [data.train.dataset[i]["image"] for i in range(len(data.train))]
    opened = [Image.open(file).convert("RGB") for file in files]
    expected = processor(opened, return_tensors="pt")["pixel_values"]
    assert found.shape == (len(files), 3, 32, 32)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_large_splits_are_decoded_on_access_with_the_same_samples(
    tiny_vit: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: Any = make_task(config("image_classification", tiny_vit, images)).prepare_data().train
    monkeypatch.setattr("hfbench.data.media.MEMORY_LIMIT_BYTES", 1000)
    lazy: Any = make_task(config("image_classification", tiny_vit, images)).prepare_data().train
    assert kept.kept is not None
    assert lazy.kept is None
    assert len(kept) == len(lazy)
    assert all(torch.equal(kept[i]["pixels"], lazy[i]["pixels"]) for i in range(len(kept)))


def test_a_model_with_one_channel_gets_grey_images(images: Path, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    settings = ViTConfig(
        image_size=16,
        patch_size=8,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    ViTModel(settings).save_pretrained(tmp_path)
    ViTImageProcessor(
        size={"height": 16, "width": 16}, image_mean=[0.5], image_std=[0.5]
    ).save_pretrained(tmp_path)
    task = make_task(config("image_classification", tmp_path, images))
    data = task.prepare_data()
    batch = task.collate([data.train[0], data.train[1]])
    assert batch["pixel_values"].shape == (2, 1, 16, 16)
    assert logits_of(task, task.build_model(data).model, [data.train[0]]).shape == (1, 2)


def test_a_timm_checkpoint_with_label_names_takes_those_of_the_data(
    images: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, TimmWrapperConfig, TimmWrapperForImageClassification

    settings = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224",
        num_labels=5,
        model_args={"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2},
        pretrained_cfg={"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3},
    )
    TimmWrapperForImageClassification(settings).save_pretrained(tmp_path / "old")
    task = make_task(config("image_classification", tmp_path / "old", images))
    model: Any = task.build_model(task.prepare_data()).model
    model.save_pretrained(tmp_path / "new")
    assert AutoConfig.from_pretrained(tmp_path / "new").id2label == {0: "a", 1: "b"}


def test_a_broken_file_is_named_with_its_row(tiny_vit: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "copy")
    (tmp_path / "copy" / "a" / "01.png").write_bytes(b"broken")
    broken = config("image_classification", tiny_vit, tmp_path / "copy")
    task = make_task(replace(broken, output_dir=str(tmp_path / "run")))
    with pytest.raises(UserError, match=r"row 1 \(.*01.png\): not a readable image"):
        task.prepare_data()
