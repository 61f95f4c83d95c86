"""What is timed beside transformers.Trainer, each in a process of its own.

Loading data and models is not timed. Trainer gets a model as our runs prepare it, so the same
parameters train; it then puts the whole model into training mode, as it always does.
"""

import dataclasses
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch
from accelerate import Accelerator
from measuring import Spans, finished, matrix_peak, timed
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainingArguments
from versus_cases import TOKENS
from versus_tables import StepShare

from hfbench import run as run_module
from hfbench.config import RunConfig
from hfbench.preparation import Prepared, learning_rates, make_accelerator, prepare
from hfbench.tasks import make_task
from hfbench.training import state

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hfbench.run", "transformers.trainer", "peft"])
WARM_UP_STEPS = 2
NOT_TRAINING = ("evaluate", "save_state", "save_tensors")
WATCHED: dict[Any, tuple[str, ...]] = {
    run_module: ("settle_threads", "prepare", "train", "evaluate"),
    state: ("save_state", "save_tensors"),
}
# Of run_module, and what they give instead: their seconds are not timed.
SKIPPED: dict[str, Any] = {"foretell": {}, "save": None}

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    seconds: float
    updates: int
    trainable: int  # parameters


def in_fresh_process(log: Path, job: Callable[..., T], *arguments: Any) -> T:
    """``job(*arguments)`` in a new process with an empty cache; what it prints goes to ``log``."""
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(
            1, mp_context=CONTEXT, initializer=_settle, initargs=(log, cache)
        ) as pool,
    ):
        return pool.submit(job, *arguments).result()


def _settle(log: Path, cache: str) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["XDG_CACHE_HOME"] = cache


def ours(config: RunConfig) -> Measured:
    """A whole run, of which the training counts, with all that is prepared for it alone.

    That is the choice of threads and everything from the loaded model to the trained one, without
    the prediction of costs, evaluation and saving.
    """
    spans = Spans()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for module, names in WATCHED.items():
            for name in names:
                watched = spans.watch(name, getattr(module, name))
                stack.enter_context(mock.patch.object(module, name, watched))
        for name, given in SKIPPED.items():
            stack.enter_context(mock.patch.object(run_module, name, return_value=given))
        result = run_module.run(dataclasses.replace(config, output_dir=folder))
    threads = spans.only("settle_threads")
    seconds = spans.seconds(
        spans.only("prepare").ended, spans.only("train").ended, without=NOT_TRAINING
    )
    assert result.parameters is not None
    return Measured(
        threads.ended - threads.started + seconds, result.steps, result.parameters.trainable
    )


def theirs(config: RunConfig, padded: bool) -> Measured:
    """Trainer with the same settings, otherwise as it comes."""
    _, prepared = _prepared(config)
    training = config.training
    data: Any = prepared.data.train
    updates = training.epochs * math.ceil(len(data) / training.batch_size)

    def action(folder: str) -> Trainer:
        trainer = Trainer(
            model=prepared.model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=training.epochs,
                per_device_train_batch_size=training.batch_size,
                learning_rate=learning_rates(config).rest,
                weight_decay=training.weight_decay,
                max_grad_norm=training.max_grad_norm,
                warmup_steps=round(updates * training.warmup_ratio),
                lr_scheduler_type=training.lr_scheduler_type,
                seed=config.seed,
                save_strategy="no",
                eval_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
            ),
            train_dataset=data,
            data_collator=_padding(prepared) if padded else prepared.task.collate,
        )
        trainer.train()
        return finished(trainer)

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trainer = action(folder)
        seconds = time.perf_counter() - started
    trainable = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
    return Measured(seconds, trainer.state.global_step, trainable)


def step_share(case: str, config: RunConfig, steps: int) -> StepShare:
    """A step of full fine-tuning, so many times on the first batch."""
    accelerator, prepared = _prepared(config)
    precision = config.training.mixed_precision
    dtype = {"no": torch.float32, "bf16": torch.bfloat16}[precision]
    device = accelerator.device
    samples = [prepared.data.train[index] for index in range(config.training.batch_size)]
    batch = {key: value.to(device) for key, value in prepared.task.collate(samples).items()}
    model = prepared.model.to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, fused=True)

    def passes() -> None:
        with accelerator.autocast():
            loss = model(**batch).loss
        loss.backward()

    def step() -> None:
        passes()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        finished()

    # PyTorch does not count the operations of the CPU's fused attention.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        passes()
    for _ in range(WARM_UP_STEPS):
        step()
    peak = matrix_peak(dtype, device)
    seconds = statistics.median(timed(step) for _ in range(steps))
    peak = max(peak, matrix_peak(dtype, device))
    return StepShare(case, precision, int(counter.get_total_flops()), seconds, peak)


def _prepared(config: RunConfig) -> tuple[Accelerator, Prepared]:
    accelerator = make_accelerator(config)
    return accelerator, prepare(config, make_task(config), accelerator)


def _padding(prepared: Prepared) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """The task's batches with every text padded to TOKENS."""
    task: Any = prepared.task
    values = {"input_ids": task.processor.pad_token_id, "attention_mask": 0, "token_type_ids": 0}

    def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = task.collate(samples)
        missing = TOKENS - batch["input_ids"].shape[1]
        padded = {key: pad(batch[key], (0, missing), value=values[key]) for key in values}
        return {**padded, "labels": batch["labels"]}

    return collate
