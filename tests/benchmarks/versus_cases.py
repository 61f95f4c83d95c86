"""What is trained in the comparison with transformers.Trainer: networks, data, settings."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset, disable_progress_bars

from hfbench.config import DataConfig, RunConfig, load_config
from hfbench.data.splits import load_splits
from hfbench.models.bundled import resolve_checkpoint

FEW = 8  # samples on which timed trainings validate
TOKENS = 128
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("bert-tiny", {"hidden_size": 384, "num_attention_heads": 6}),
    "image": ("vit-tiny", {"hidden_size": 192, "num_attention_heads": 3, "image_size": 32}),
    "audio": (
        "wav2vec2-tiny",
        {"hidden_size": 192, "num_attention_heads": 3, "conv_dim": [128] * 7},
    ),
}


@dataclass(frozen=True)
class Entry:
    """One strategy that both sides train for some epochs."""

    strategy: str
    epochs: int
    padded: bool = False  # Trainer also with every text padded to TOKENS


@dataclass(frozen=True)
class Case:
    name: str
    batch_size: int
    samples: int
    entries: tuple[Entry, ...]
    quick: tuple[Entry, ...]


MEDIA = tuple(Entry(strategy, 5) for strategy in ("head", "last_1", "last_2", "full"))
CASES = (
    Case(
        "text",
        batch_size=32,
        samples=512,
        entries=(
            Entry("full", 3, padded=True),
            Entry("lora", 3),
            Entry("last_2", 3),
            Entry("head", 3),
            Entry("head", 10),
        ),
        quick=(Entry("full", 1, padded=True),),
    ),
    Case("image", batch_size=32, samples=512, entries=MEDIA, quick=(Entry("head", 2),)),
    Case("audio", batch_size=16, samples=256, entries=MEDIA, quick=(Entry("last_1", 2),)),
)


def make_checkpoint(case: str, folder: Path) -> Path:
    """Random weights of 6 blocks, 64 patches for images, with the bundled processor.

    What the weights are does not change the time of a step.
    """
    bundled, changes = NETWORKS[case]
    source = Path(resolve_checkpoint(f"bundled/{bundled}"))
    config = transformers.AutoConfig.from_pretrained(source)
    (architecture,) = config.architectures
    transformers.utils.logging.disable_progress_bar()
    config.update({**changes, "intermediate_size": 4 * changes["hidden_size"]})
    getattr(transformers, architecture)(config).save_pretrained(folder)
    for file in source.glob("*token*.json"):
        shutil.copy(file, folder)
    for file in source.glob("preprocessor_config.json"):
        settings = json.loads(file.read_text())
        if "image_size" in changes:
            settings["size"] = dict.fromkeys(("height", "width"), changes["image_size"])
        (folder / file.name).write_text(json.dumps(settings))
    return folder


def export_texts(source: str, folder: Path, *, samples: int, eval_samples: int) -> Path:
    """A subset of ``source`` that both sides read: <split>.parquet with text and label."""
    settings = DataConfig(source=source, max_train_samples=samples, max_eval_samples=eval_samples)
    splits = load_splits(settings, "text")
    if "text_pair" in splits.train.column_names:
        raise SystemExit(f"{source} has pairs of texts: the comparison is for single texts")
    disable_progress_bars()
    folder.mkdir(parents=True)
    known = set(splits.train["labels"])
    for split in ("train", "validation", "test"):
        rows = [row for row in getattr(splits, split) if row["labels"] in known]
        columns = {
            "text": [row["text"] for row in rows],
            "label": [splits.label_names[row["labels"]] for row in rows],
        }
        Dataset.from_dict(columns).to_parquet(folder / f"{split}.parquet")
    return folder


def text_config(checkpoint: str, data: Path, *, learning_rate: float, max_length: int) -> RunConfig:
    """Texts with all evaluation samples, as the matrix trains them."""
    settings = [
        f"model.checkpoint={checkpoint}",
        f"data.source={data}",
        f"data.max_length={max_length}",
        f"training.learning_rate={learning_rate}",
    ]
    return load_config(None, settings, task="text_classification")


def timed_config(case: Case, checkpoint: Path, texts: Path | None, samples: int) -> RunConfig:
    """A training that is timed: hardly any validation."""
    if case.name == "text":
        assert texts is not None
        config = text_config(str(checkpoint), texts, learning_rate=5e-5, max_length=TOKENS)
    else:
        source = {"image": "bundled/digits", "audio": "bundled/spoken-digits"}[case.name]
        settings = [
            f"model.checkpoint={checkpoint}",
            f"data.source={source}",
            f"data.max_train_samples={samples}",
        ]
        config = load_config(None, settings, task=f"{case.name}_classification")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, max_eval_samples=FEW),
        training=dataclasses.replace(config.training, batch_size=case.batch_size),
    )
