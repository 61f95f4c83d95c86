"""After the memory was exhausted: the same run again, each batch in twice as many parts.

The samples of a step stay the same: a batch is computed in parts, as if ``training.batch_size``
were half as large and ``training.gradient_accumulation_steps`` twice as large.
"""

import math
import os
import sys
from dataclasses import replace
from typing import NoReturn

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hfbench.choices import keep_choices, kept_choices
from hfbench.config import RunConfig
from hfbench.errors import StartAgainError
from hfbench.record import Record, run_folder, run_id


def batch_parts(config: RunConfig) -> int:
    """In how many parts this run computes a batch, by what became of it before."""
    if config.training.oom != "retry":
        return 1
    return kept_choices(run_folder(config)).parts or 1


def with_parts(config: RunConfig, parts: int) -> RunConfig:
    """What the passes of such a run are like; its batches stay those of ``config``."""
    training = config.training
    size = math.ceil(training.batch_size / parts)
    passes = math.ceil(training.batch_size / size)  # of a batch
    smaller = replace(
        training,
        batch_size=size,
        eval_batch_size=math.ceil(training.eval_batch_size / parts),
        gradient_accumulation_steps=training.gradient_accumulation_steps * passes,
    )
    return replace(config, training=smaller)


def divide_further(config: RunConfig, record: Record, processes: int) -> None:
    """Keep that the next start of a run that is out of memory computes smaller parts.

    Nothing where it may not, had not begun, or computes single samples already.
    """
    parts = record.fields["batch_parts"]
    if config.training.oom != "retry" or not record.begun:
        return
    training = config.training
    if parts >= max(training.batch_size / processes, training.eval_batch_size):
        return
    kept = kept_choices(record.folder)
    keep_choices(record.folder, run_id(config), replace(kept, parts=2 * parts))


def check_divided(config: RunConfig, record: Record) -> None:
    """On the process that was out of memory, once the main process has kept what follows.

    Raises:
        StartAgainError: the next start computes smaller parts.
    """
    parts = batch_parts(config)
    if parts > record.fields["batch_parts"]:
        raise StartAgainError(
            f"out of memory: when it starts again, it computes {_sizes(config, parts)}"
        )


def note(model: nn.Module, config: RunConfig, parts: int) -> str:
    """What is other than the user asked for, before the training and in the result."""
    said = f"the memory was exhausted: it computes {_sizes(config, parts)}, in the same steps"
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if any(p.requires_grad for module in norms for p in module.parameters()):
        said += "; batch norms see the parts, so the numbers are other ones than of whole batches"
    return said


def _sizes(config: RunConfig, parts: int) -> str:
    smaller = with_parts(config, parts).training
    return (
        f"each batch in parts of at most {smaller.batch_size} (training) and "
        f"{smaller.eval_batch_size} (evaluation) samples"
    )


def start_again() -> NoReturn:
    """Run this program again in the place of this process, whose memory goes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
