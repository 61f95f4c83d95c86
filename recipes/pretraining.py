"""What the pretrain_*.py recipes share: arguments, the call of the loop, the model card."""

import argparse
import sys
from pathlib import Path
from typing import Literal

import torch
import transformers
from accelerate import Accelerator
from torch import nn

from hfbench.config import TrainingConfig
from hfbench.training.batching import SampleSource
from hfbench.training.fit import fit
from hfbench.training.objective import FitResult, Objective
from hfbench.training.optimizer import LearningRates

CARD = """---
license: apache-2.0
{metadata}---
# {name}

{description}

Made as a demonstration for hfbench: a network small enough to fine-tune on one CPU core within a
minute, pre-trained on real data. It is no competitor to published checkpoints.

## Data

{data_notes}

## Training

| | |
|---|---|
| command | `{command}` |
| parameters of the network | {parameters:,} |
| samples seen | {samples:,} in {steps:,} steps of {batch_size}, {epochs} epochs |
| peak learning rate | {learning_rate}, {schedule} decay, {warmup_ratio:.0%} warm-up |
| mixed precision | {mixed_precision} (the weights are float32) |
| duration | {minutes:.0f} minutes without evaluation, one thread of a shared 2-core CPU |
| versions | torch {torch}, transformers {transformers} |

## Scores

{scores}
| epoch | training loss | {validation_columns} |
|---:|---:|{alignment}
{history}

## Licence

The weights are shipped under hfbench's licence, Apache-2.0. They contain none of the data; the
attribution that the data's licences ask for is above.
"""


def argument_parser(
    doc: str,
    *,
    output: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    mixed_precision: Literal["no", "bf16"],
) -> argparse.ArgumentParser:
    """The arguments that all of these recipes have, with one recipe's defaults."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument(
        "--data-notes",
        type=Path,
        required=True,
        help="Markdown file with the data's origin, licence and attribution, copied to the card",
    )
    parser.add_argument("--output", type=Path, default=f"hfbench/bundled/checkpoints/{output}")
    parser.add_argument("--state", type=Path, default=f"runs/pretrain-{output}", help="to resume")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default=mixed_precision)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def training_config(args: argparse.Namespace) -> TrainingConfig:
    return TrainingConfig(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=0.05,
        mixed_precision=args.mixed_precision,
        save_steps=500,
    )


def pretrain(
    model: nn.Module,
    data: SampleSource,
    objective: Objective,
    accelerator: Accelerator,
    args: argparse.Namespace,
) -> FitResult:
    """Train `model` in place; an interrupted call goes on where it stopped."""
    return fit(
        model,
        data,
        objective,
        config=training_config(args),
        rates=LearningRates(rest=args.learning_rate, head=args.learning_rate),
        accelerator=accelerator,
        folder=args.state,
        seed=args.seed,
        title=args.output.name,
    )


def write_card(
    args: argparse.Namespace,
    result: FitResult,
    *,
    metadata: str,
    description: str,
    scores: str,
    parameters: int,
) -> None:
    """Write README.md beside the weights.

    Args:
        metadata: YAML lines for the card's head.
        scores: Markdown on the final scores and what they were measured on.
    """
    config = training_config(args)
    names = list(result.history[-1].validation)
    rows = (
        f"| {record.epoch:.0f} | {record.train_loss:.3f} | "
        + " | ".join(f"{record.validation[name]:.3f}" for name in names)
        + " |"
        for record in result.history
    )
    card = CARD.format(
        name=args.output.name,
        metadata=metadata,
        description=description,
        data_notes=args.data_notes.read_text(encoding="utf-8").strip(),
        command=" ".join(["python", *sys.argv]),
        parameters=parameters,
        samples=result.samples_seen,
        steps=len(result.step_losses),
        batch_size=config.batch_size,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        schedule=config.lr_scheduler_type,
        warmup_ratio=config.warmup_ratio,
        mixed_precision=config.mixed_precision,
        minutes=result.train_seconds / 60,
        torch=torch.__version__,
        transformers=transformers.__version__,
        scores=scores,
        validation_columns=" | ".join(f"validation {name}" for name in names),
        alignment="---:|" * len(names),
        history="\n".join(rows),
    )
    (args.output / "README.md").write_text(card, encoding="utf-8")
