"""What an image processor makes of an image is what the network gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from classification_tasks import config
from PIL import Image

from hfbench.data.image_frames import SIZE, describe_frames
from hfbench.errors import UserError
from hfbench.models.loading import load_config, load_image_processor
from hfbench.preparation import make_accelerator, prepare
from hfbench.tasks import make_task
from hfbench.tasks.image_steps import ImageSteps

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of noise, 60 × 40 pixels, of two labels."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), [(60, 40)] * 40)


def write_pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    rng = np.random.default_rng(0)
    for index, (width, height) in enumerate(sizes):
        path = folder / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return folder


# ---- checkpoints


def efficientnet(folder: Path) -> None:
    """Pixels from -1 to 1 before they are normalised, and twice so for a top."""
    settings = transformers.EfficientNetConfig(
        image_size=32, hidden_dim=128, width_coefficient=0.1, depth_coefficient=0.1
    )
    transformers.EfficientNetModel(settings).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.EfficientNetImageProcessor(
        size=size, rescale_offset=True, include_top=True
    ).save_pretrained(folder)


def imagegpt(folder: Path) -> None:
    """The numbers of the nearest colours instead of pixels."""
    settings = transformers.ImageGPTConfig(
        vocab_size=17, n_positions=64, n_embd=16, n_layer=2, n_head=2
    )
    transformers.ImageGPTModel(settings).save_pretrained(folder)
    colours = np.random.default_rng(0).uniform(-1, 1, (16, 3))
    transformers.ImageGPTImageProcessor(
        clusters=colours.tolist(), size={"height": 8, "width": 8}
    ).save_pretrained(folder)


def siglip2(folder: Path) -> None:
    """Patches, a mask and how many there are in each direction."""
    vision = SMALL | {"intermediate_size": 32, "patch_size": 8, "num_patches": 16}
    settings = transformers.Siglip2Config(
        vision_config=vision, text_config=SMALL | {"intermediate_size": 32, "vocab_size": 20}
    )
    transformers.Siglip2Model(settings).save_pretrained(folder)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)


def convnext(folder: Path) -> None:
    """Resized to 32 / 0.5 = 64, then the middle 32 × 32."""
    settings = transformers.ConvNextConfig(
        image_size=32, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]
    )
    transformers.ConvNextModel(settings).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.5).save_pretrained(
        folder
    )


def vit(folder: Path, **settings: Any) -> None:
    config = {"image_size": 32, "patch_size": 8, "intermediate_size": 16, **SMALL, **settings}
    transformers.ViTModel(transformers.ViTConfig(**config)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def timm_vit(folder: Path) -> None:
    settings = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224",
        num_labels=2,
        model_args={"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2},
        pretrained_cfg={
            "input_size": [3, 32, 32],
            "crop_pct": 0.5,
            "interpolation": "bicubic",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
    )
    transformers.TimmWrapperForImageClassification(settings).save_pretrained(folder)


WHOLE = {"efficientnet": efficientnet, "imagegpt": imagegpt, "siglip2": siglip2, "timm": timm_vit}
IN_STEPS = {"convnext": convnext, "vit": vit}
CHECKPOINTS: dict[str, Callable[[Path], None]] = {**WHOLE, **IN_STEPS}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_the_network_gets_what_the_processor_gives(
    kind: str, pictures: Path, tmp_path: Path
) -> None:
    CHECKPOINTS[kind](tmp_path)
    case = config("image_classification", tmp_path, pictures)
    task: Any = make_task(case)
    prepared = prepare(case, task, make_accelerator(case))
    train: Any = prepared.data.train
    batch = task.collate([train[i] for i in range(3)])
    opened = [Image.open(train.dataset[i]["image"]) for i in range(3)]
    expected = load_image_processor(case.model)(opened, return_tensors="pt")
    assert set(batch) == {*expected, "labels"}
    for name, value in expected.items():
        torch.testing.assert_close(batch[name], value, atol=1e-6, rtol=0)
    assert task.steps.two_steps == (kind in IN_STEPS)
    with torch.no_grad():
        assert prepared.model.eval()(**batch).logits.shape == (3, 2)


def test_a_saved_processor_that_does_more_is_used_for_new_images(
    pictures: Path, tmp_path: Path
) -> None:
    siglip2(tmp_path / "checkpoint")
    case = config("image_classification", tmp_path / "checkpoint", pictures)
    task: Any = make_task(case)
    data = task.prepare_data()
    model: Any = task.build_model(data).model
    model.save_pretrained(tmp_path / "saved")
    task.save_processor(tmp_path / "saved")
    again: Any = make_task(config("image_classification", tmp_path / "saved", pictures))
    again.processor = again.load_processor()
    rows = data.train.dataset.remove_columns("labels")
    samples = again.features(rows, "input", keep=False)
    trained_on, found = task.collate([data.train[0]]), again.collate([samples[0]])
    assert all(torch.equal(found[name], trained_on[name]) for name in found)


# ---- what does not fit


def refusal(checkpoint: Path, data: Path) -> str:
    case = config("image_classification", checkpoint, data)
    with pytest.raises(UserError) as caught:
        prepare(case, make_task(case), make_accelerator(case))
    return str(caught.value)


def test_images_of_another_size_than_the_network_s(pictures: Path, tmp_path: Path) -> None:
    vit(tmp_path)
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    said = refusal(tmp_path, pictures)
    assert (
        "ViTImageProcessor gives pixel_values (2 × 3 × 48 × 48, float32), labels (2, int64)" in said
    )
    assert "is made for image_size=32, num_channels=3, patch_size=8. It says: ValueError" in said


def test_images_with_fewer_channels_than_the_network_s(pictures: Path, tmp_path: Path) -> None:
    vit(tmp_path, num_channels=4)
    said = refusal(tmp_path, pictures)
    assert "pixel_values (2 × 3 × 32 × 32, float32)" in said
    assert "num_channels=4" in said


def test_patches_for_a_network_that_reads_images(pictures: Path, tmp_path: Path) -> None:
    vit(tmp_path)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    said = refusal(tmp_path, pictures)
    assert "Siglip2ImageProcessor gives pixel_values (2 × 16 × 192, float32)" in said


def test_colours_for_a_network_that_reads_images(pictures: Path, tmp_path: Path) -> None:
    imagegpt(tmp_path)
    vit(tmp_path / "vit")
    (tmp_path / "vit" / "config.json").rename(tmp_path / "config.json")
    assert "gives input_ids, and ViTForImageClassification reads pixel_values" in refusal(
        tmp_path, pictures
    )


@pytest.mark.parametrize("common", [2, 39])
def test_images_that_become_of_different_sizes(tmp_path: Path, common: int) -> None:
    """Also where the first two are alike, and where only one of all is different."""
    vit(tmp_path / "model")
    transformers.ViTImageProcessor(do_resize=False).save_pretrained(tmp_path / "model")
    sizes = [(32, 32)] * common + [(40, 32)] * (40 - common)
    said = refusal(tmp_path / "model", write_pictures(tmp_path / "data", sizes))
    assert f"3 × 32 × 32 of {common} images" in said
    assert "different sizes for images of different sizes" in said


def test_texts_beyond_the_embedding_are_named_with_the_tokens(
    tiny_bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is of all tasks: here a network that refuses its batch."""

    def refuse(*_: Any, **__: Any) -> None:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", refuse)
    case = config("text_classification", tiny_bert, texts)
    with pytest.raises(UserError, match=r"(?s)gives input_ids \(2 × .*vocab_size=.*IndexError: in"):
        prepare(case, make_task(case), make_accelerator(case))


def test_the_check_leaves_modes_and_random_numbers_as_they_are(
    tiny_vit: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = config("image_classification", tiny_vit, pictures)
    states = []
    for checked in (True, False):
        if not checked:
            monkeypatch.setattr("hfbench.preparation.check_first_batch", lambda *_, **__: None)
        model = prepare(case, make_task(case), make_accelerator(case)).model
        states.append((torch.rand(3).tolist(), [m.training for m in model.modules()]))
    assert states[0] == states[1]


# ---- what is cropped and squashed


def frames_of(processor: Any, sizes: dict[tuple[int, int], int]) -> dict[str, Any]:
    summary: dict[str, Any] = {"notes": []}
    facts = {f"{SIZE}{w} × {h}": float(count) for (w, h), count in sizes.items()}
    describe_frames(ImageSteps(processor, "RGB").values, "RGB", facts, summary)
    return summary


def test_a_resize_to_a_square_squashes_what_is_not_square() -> None:
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    summary = frames_of(processor, {(128, 96): 7, (80, 80): 3})
    assert summary["frames"]["squashed"] == 7
    assert summary["frames"]["cropped"] == 0
    assert summary["notes"] == [
        "images: those of 128 × 96 pixels, the most common size, are resized to 64 × 64; black is "
        "-1 and white 1",
        "7 of 10 images are squashed by the image processor: their width and height are not scaled "
        "alike",
    ]


def test_a_centre_crop_leaves_borders_out() -> None:
    """The short side becomes 64 / 0.8 = 80, of which 64 × 64 remain: 0.64 of a square, 0.32 of
    one that is twice as wide."""
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.8)
    summary = frames_of(processor, {(160, 160): 1, (320, 160): 3})
    assert (summary["frames"]["squashed"], summary["frames"]["cropped"]) == (0, 4)
    expected = 100 * (1 - (0.64 + 3 * 2 * 0.32) / 7)
    assert summary["frames"]["cropped_pixels_percent"] == pytest.approx(expected, abs=1)
    assert "are resized to 160 × 80, of which 64 × 64 remain" in summary["notes"][0]


def test_padding_is_neither() -> None:
    """A picture that is twice as wide as high fills half of a square."""
    processor = transformers.DonutImageProcessor(size={"height": 64, "width": 64})
    summary = frames_of(processor, {(160, 80): 2})
    assert (summary["frames"]["squashed"], summary["frames"]["cropped"]) == (0, 0)
    assert "are resized to 64 × 32 and padded to 64 × 64" in summary["notes"][0]


def test_images_that_keep_their_frame_are_neither() -> None:
    processor = transformers.ViTImageProcessor(size={"height": 48, "width": 64})
    summary = frames_of(processor, {(128, 96): 5, (64, 48): 5})
    assert (summary["frames"]["squashed"], summary["frames"]["cropped"]) == (0, 0)
    assert len(summary["notes"]) == 1


def test_many_sizes_are_described_by_their_aspect_ratios() -> None:
    """Half of the 60 sizes are square."""
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    sizes = {(40 + i, 40 + i): 1 for i in range(30)} | {(80 + 2 * i, 40 + i): 1 for i in range(30)}
    assert frames_of(processor, sizes)["frames"]["squashed"] == 30


def test_a_size_that_the_configuration_does_not_name_is_said(
    pictures: Path, tmp_path: Path
) -> None:
    """A network of convolutions takes any size."""
    convnext(tmp_path)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.9).save_pretrained(
        tmp_path
    )
    assert load_config(config("", tmp_path, "").model).image_size == 32
    task = make_task(config("image_classification", tmp_path, pictures))
    notes = task.prepare_data().summary["notes"]
    assert "the network gets 64 × 64 pixels, and its configuration names 32 × 32" in notes
