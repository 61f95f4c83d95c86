"""The loop that tutorials teach for MNIST, as a yardstick: no part of hfbench is used.

    python tests/benchmarks/tutorial_mnist.py FOLDER --epochs 10

One image at a time becomes a PIL image and through torchvision's ToTensor a tensor; a DataLoader
collates batches of 64; the loss is read with ``.item()`` at every step. A tenth of the training
images validates every epoch, and the test images are read once. FOLDER holds MNIST's idx files.
"""

import argparse
import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import ToTensor

BATCH_SIZE = 64


class Images(Dataset[tuple[torch.Tensor, int]]):
    """What ``torchvision.datasets.MNIST(transform=ToTensor())`` does with a sample."""

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        self.data, self.targets = pixels, labels
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, target = self.data[index], int(self.targets[index])
        return self.transform(Image.fromarray(image.numpy(), mode="L")), target


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 256), nn.ReLU()),
        *(nn.Linear(256, 128), nn.ReLU()),
        *(nn.Linear(128, 64), nn.ReLU()),
        nn.Linear(64, 10),
    )


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any]
) -> list[float]:
    """The loss of every step."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    losses = []
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(model: nn.Module, loader: Iterable[Any]) -> float:
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (model(images).argmax(1) == labels).sum().item()
            total += len(labels)
    return correct / total


def load(folder: Path, prefix: str) -> Images:
    pixels = _values(folder / f"{prefix}-images-idx3-ubyte", header_bytes=16)
    labels = _values(folder / f"{prefix}-labels-idx1-ubyte", header_bytes=8)
    return Images(torch.from_numpy(pixels.reshape(-1, 28, 28)), torch.from_numpy(labels))


def _values(path: Path, *, header_bytes: int) -> Any:
    zipped = path.with_name(f"{path.name}.gz")
    content = path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).copy()


def in_order(data: Dataset[Any], order: Sequence[int]) -> Iterator[Any]:
    """Batches of 64 in this order."""
    return iter(DataLoader(data, batch_size=BATCH_SIZE, sampler=order))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    everything = load(options.folder, "train")
    order = torch.randperm(len(everything)).tolist()
    held_out = len(everything) // 10
    train = DataLoader(Subset(everything, order[held_out:]), batch_size=BATCH_SIZE, shuffle=True)
    validation = DataLoader(Subset(everything, order[:held_out]), batch_size=1000)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(options.epochs):
        losses = train_epoch(model, optimizer, train)
        print(
            f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}, "
            f"validation accuracy {accuracy(model, validation):.4f}",
            flush=True,
        )
    test = DataLoader(load(options.folder, "t10k"), batch_size=1000)
    print(f"test accuracy {accuracy(model, test):.4f}")


if __name__ == "__main__":
    main()
