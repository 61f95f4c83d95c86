"""Pre-trains the bundled vit-tiny: a ViT (Dosovitskiy et al. 2021) taught Fashion-MNIST's classes.

    apt-get install dataset-fashion-mnist
    python recipes/pretrain_image.py --data /usr/share/datasets/fashion-mnist \
        --data-notes recipes/data_notes/image.md

--data is a folder with the four idx files, or a hub name such as zalando-datasets/fashion_mnist.
"""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_dataset
from pretraining import argument_parser, pretrain, write_card
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hfbench.training.batching import Batch, Sample
from hfbench.training.evaluation import predict_split
from hfbench.training.objective import Objective

IMAGE_SIZE = 28
NUM_LABELS = 10
VALIDATION_IMAGES = 5000  # the last ones of the training file
SMALLEST_SIZE = 8  # pixels of a side that augmentation leaves
GROUPS = 4  # of a batch; each is shrunk to a size of its own


def read_idx(path: Path) -> Tensor:
    """The uint8 array of an idx file (gzip), whose header gives the number of dimensions."""
    if not path.exists():
        raise SystemExit(f"{path} does not exist: install dataset-fashion-mnist or give a hub name")
    content = gzip.decompress(path.read_bytes())
    header = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:header], dtype=">u4")
    return torch.from_numpy(np.frombuffer(content[header:], dtype=np.uint8).reshape(shape).copy())


def read_images(source: str, split: str) -> tuple[Tensor, Tensor]:
    """(images, 28, 28) uint8 and (images,) int64 labels; split is "train" or "test"."""
    if Path(source).is_dir():
        stem = {"train": "train", "test": "t10k"}[split]
        images = read_idx(Path(source) / f"{stem}-images-idx3-ubyte.gz")
        return images, read_idx(Path(source) / f"{stem}-labels-idx1-ubyte.gz").long()
    rows = load_dataset(source, split=split)
    images = np.stack([np.asarray(image.convert("L")) for image in rows["image"]])
    return torch.from_numpy(images), torch.tensor(rows["label"])


def as_samples(images: Tensor, labels: Tensor, *, augmented: bool) -> list[Sample]:
    return [
        {"image": image, "label": label, "augmented": augmented}
        for image, label in zip(images, labels, strict=True)
    ]


def augment(images: Tensor) -> Tensor:
    """Shifts, turns, scales, shrinks and inverts at random. images: (batch, 1, 28, 28), 0 to 1.

    Shrinking and inverting make the network useful for coarse images of either polarity.
    """
    size = len(images)
    angle = (torch.rand(size) - 0.5) * 0.5  # radians
    scale = 0.9 + 0.4 * torch.rand(size)
    shift = (torch.rand(size, 2) - 0.5) * 0.3
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1)
    grid = nn.functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, align_corners=False)
    resized = []
    for group in moved.chunk(GROUPS):
        side = int(torch.randint(SMALLEST_SIZE, IMAGE_SIZE + 1, ()))
        small = nn.functional.interpolate(group, (side, side), mode="area")
        large = (IMAGE_SIZE, IMAGE_SIZE)
        resized.append(nn.functional.interpolate(small, large, mode="bilinear"))
    result = torch.cat(resized)
    inverted = torch.rand(size, 1, 1, 1) < 0.5
    return torch.where(inverted, 1 - result, result)


def collate(samples: list[Sample]) -> Batch:
    """pixel_values: (batch, 3, 28, 28), -1 to 1, as the saved ViTImageProcessor gives them."""
    images = torch.stack([sample["image"] for sample in samples])[:, None].float() / 255
    if samples[0]["augmented"]:
        images = augment(images)
    pixel_values = (images * 2 - 1).expand(-1, 3, -1, -1)
    return {"pixel_values": pixel_values, "labels": torch.stack([s["label"] for s in samples])}


def main() -> None:
    parser = argument_parser(
        __doc__,
        output="vit-tiny",
        epochs=5,
        batch_size=64,
        learning_rate=1e-3,
        mixed_precision="no",
    )
    parser.add_argument("--data", required=True, help="folder with idx files, or hub name")
    args = parser.parse_args()
    set_seed(args.seed)
    accelerator = Accelerator(cpu=True, mixed_precision=args.mixed_precision)
    images, labels = read_images(args.data, "train")
    train = as_samples(images[:-VALIDATION_IMAGES], labels[:-VALIDATION_IMAGES], augmented=True)
    held_out = images[-VALIDATION_IMAGES:], labels[-VALIDATION_IMAGES:]

    config = ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=4,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        num_labels=NUM_LABELS,
    )
    model = ViTForImageClassification(config)

    def accuracy(model: nn.Module, samples: list[Sample]) -> dict[str, Any]:
        found = predict_split(
            model,
            samples,
            collate=collate,
            loss_units=lambda batch: len(batch["labels"]),
            keep=lambda outputs, batch: outputs.logits.float(),
            batch_size=args.batch_size,
            accelerator=accelerator,
        )
        correct = found.predictions.argmax(-1) == found.references
        return {"loss": found.loss, "accuracy": float(correct.mean())}

    validation = as_samples(*held_out, augmented=False)
    objective = Objective(
        collate=collate,
        loss_units=lambda batch: len(batch["labels"]),
        evaluate=lambda model: accuracy(model, validation),
        metric="accuracy",
        greater_is_better=True,
    )
    result = pretrain(model, train, objective, accelerator, args)
    test = accuracy(model, as_samples(*read_images(args.data, "test"), augmented=False))

    # Only the backbone is shipped: every task that starts from it needs a head of its own.
    config.num_labels, config.problem_type = 2, None
    model.vit.save_pretrained(args.output)
    ViTImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_convert_rgb=True,
    ).save_pretrained(args.output)
    write_card(
        args,
        result,
        metadata="pipeline_tag: image-feature-extraction\nlibrary_name: transformers\n",
        description="The backbone of a ViT (6 blocks of width 128, 4 heads, 28 × 28 pixels in "
        "patches of 4 × 4, three equal channels) pre-trained with supervision on the ten classes "
        "of Fashion-MNIST, with shifts, turns, scaling, shrinking to as little as 8 × 8 pixels "
        "and inversion. The head was left out.",
        scores=f"Accuracy on the 10,000 test images, read once at the end: **{test['accuracy']:.4f}"
        f"** (loss {test['loss']:.3f}). Validation: the last {VALIDATION_IMAGES:,} training "
        "images, held out. Neither is augmented. The epoch with the highest validation accuracy "
        "was kept.\n",
        parameters=model.vit.num_parameters(),
    )


if __name__ == "__main__":
    main()
