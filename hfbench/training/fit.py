"""The only training loop: any model, any data, any number of processes.

The loop knows no task and no strategy. It needs a model for which ``model(**batch)`` gives
``.loss`` (a mean over the batch's loss units) and an :class:`Objective` that says what a unit is.
Gradients are sums over units divided once by the number of units in the whole accumulation window
of all processes, so short last batches and windows weigh exactly what they hold.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from tqdm.auto import tqdm

from hfbench.config import TrainingConfig
from hfbench.interrupts import signals_wait
from hfbench.results import EpochRecord
from hfbench.training import memory, state
from hfbench.training.batching import (
    Batch,
    SampleSource,
    Share,
    divided,
    epoch_batches,
    equal_parts,
    load_batches,
    split_batches,
)
from hfbench.training.breaks import Breaks
from hfbench.training.divergence import check_first_metric, check_loss, check_weights
from hfbench.training.losses import PendingLosses
from hfbench.training.objective import FitResult, Objective
from hfbench.training.optimizer import LearningRates, Penalty, build_optimizer, build_schedule
from hfbench.training.progress import progress_options
from hfbench.training.undisturbed import gpus_of
from hfbench.training.unfreezing import Unfreezing


def fit(
    model: nn.Module,
    data: SampleSource,
    objective: Objective,
    *,
    config: TrainingConfig,
    rates: LearningRates,
    accelerator: Accelerator,
    folder: Path,
    owner: str,
    seed: int,
    lengths: Sequence[int] | None = None,
    equal_lengths: bool = False,
    parts: int = 1,
    title: str = "train",
) -> FitResult:
    """Train ``model`` in place and leave the best epoch's parameters in it.

    Args:
        folder: for the state (``resume=auto`` continues from it, even mid-epoch) and for the best
            epoch's parameters.
        owner: the run whose they are: no other goes on from them.
        seed: of the data order.
        lengths: of every sample; with ``group_by_length`` those of like length share a batch.
        equal_lengths: a batch is computed in parts of one length each.
        parts: in which a batch is computed, where it does not fit into memory as a whole; the same
            samples make the same steps.

    Raises:
        Interrupted: a signal came. The state of the last step, or of the last epoch where it came
            during an evaluation, is kept.
        DivergedError: when the loss, a weight or the first validation metric is NaN or infinite.
            The last state and the best parameters stay those before.
    """
    loop = _Loop(
        model,
        data,
        objective,
        config,
        rates,
        accelerator,
        folder,
        owner,
        seed,
        lengths,
        equal_lengths,
        parts,
    )
    loop.resume()
    loop.run(title)
    return loop.result()


class _Loop:
    def __init__(
        self,
        model: nn.Module,
        data: SampleSource,
        objective: Objective,
        config: TrainingConfig,
        rates: LearningRates,
        accelerator: Accelerator,
        folder: Path,
        owner: str,
        seed: int,
        lengths: Sequence[int] | None,
        equal_lengths: bool,
        parts: int,
    ) -> None:
        self.most_at_once = math.ceil(config.batch_size / parts)
        self.data, self.objective, self.config = data, objective, config
        self.lengths = lengths if config.group_by_length else None
        self.equal = lengths if equal_lengths else None
        self.accelerator, self.seed = accelerator, seed
        self.folder, self.owner = folder, owner
        model = model.to(accelerator.device)
        wrapped = accelerator.distributed_type != DistributedType.NO  # also around one process
        if wrapped and (objective.trains is not None or self.leaves_gradients_out(model)):
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        optimizer = build_optimizer(
            model,
            rates=rates,
            config=config,
            is_head=objective.is_head,
            rate_factor=objective.rate_factor,
            decays=objective.decays,
            # A fused step hides from Accelerate that the loss scaler skipped it.
            fused=accelerator.scaler is None,
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        # Where Accelerate's own backward and step add nothing they are left out: one divides the
        # loss by 1, the other looks for packages on the disk, a tenth of a small network's step.
        managed = accelerator.scaler is not None or accelerator.distributed_type in (
            DistributedType.DEEPSPEED,
            DistributedType.XLA,
        )
        self.managed = managed
        self.stepper = self.optimizer if managed else optimizer
        batches = math.ceil(len(data) / config.batch_size)
        self.steps_per_epoch = math.ceil(batches / config.gradient_accumulation_steps)
        self.total_steps = config.epochs * self.steps_per_epoch
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.schedule = build_schedule(optimizer, config, self.total_steps)
        self.unfreezing = Unfreezing(self.model, objective.trains)
        self.trainable = list(self.unfreezing.trainable.values())
        decaying = [p for n, p in self.unfreezing.trainable.items() if objective.decays(n)]
        self.penalty = Penalty(decaying, l1=config.l1, l2=config.l2)
        self.parts: dict[str, Any] = {"optimizer": optimizer}
        if self.schedule is not None:
            self.parts["schedule"] = self.schedule
        if accelerator.scaler is not None:
            self.parts["scaler"] = accelerator.scaler
        self.progress = state.Progress()
        self.pending = PendingLosses(accelerator)
        self.breaks = Breaks(config, accelerator)
        self.started = time.perf_counter()

    def leaves_gradients_out(self, model: nn.Module) -> bool:
        """Whether a backward pass misses trainable parameters; processes must agree on them."""
        with torch.random.fork_rng(gpus_of(model)):
            second = 0 if self.equal else 1 % len(self.data)
            batch = self.objective.collate([self.data[0], self.data[second]])
            self.objective.train_mode(model)
            model(**{k: v.to(self.accelerator.device) for k, v in batch.items()}).loss.backward()
        missing = any(p.requires_grad and p.grad is None for p in model.parameters())
        model.zero_grad(set_to_none=True)
        return missing

    # -- position -----------------------------------------------------------------------------

    def resume(self) -> None:
        stored = None
        if self.config.resume == "auto":
            stored = state.load_state(
                self.folder, self.accelerator, self.model, self.parts, owner=self.owner
            )
        if stored is None:
            state.clear(self.folder, self.accelerator)
        else:
            self.progress = state.Progress(**stored)
            self.accelerator.print(
                f"resumed at epoch {self.progress.epoch}, step {self.progress.step}"
            )

    def save(self) -> None:
        state.save_state(
            self.folder,
            self.accelerator,
            self.model,
            self.parts,
            asdict(self.progress),
            owner=self.owner,
        )
        self.breaks.saved()

    def result(self) -> FitResult:
        return FitResult(
            history=tuple(EpochRecord(**record) for record in self.progress.history),
            step_losses=tuple(self.progress.step_losses),
            train_seconds=self.progress.train_seconds,
            samples_seen=self.progress.samples_seen,
            best_metric=self.progress.best_metric,
            peak_memory_bytes=self.progress.peak_memory_bytes,
            total_steps=self.total_steps if self.progress.out_of_time else None,
        )

    # -- training -----------------------------------------------------------------------------

    def run(self, title: str) -> None:
        bar = tqdm(
            total=self.total_steps,
            initial=self.progress.step,
            desc=title,
            **progress_options(self.accelerator.is_main_process),
        )
        with bar:
            while not self.progress.finished:
                self.train_epoch(bar)
                self.end_epoch(bar)
        if self.progress.best_step is not None:
            bare = self.accelerator.unwrap_model(self.model)
            state.load_best(self.folder, bare, owner=self.owner, step=self.progress.best_step)

    def train_epoch(self, bar: Any) -> None:
        """Take the steps that are left of the epoch, or those before a signal or the last one."""
        progress = self.progress
        self.unfreezing.enter(progress.epoch)
        self.objective.train_mode(self.accelerator.unwrap_model(self.model))
        memory.reset_peak(self.accelerator.device)
        with signals_wait():
            self.take_steps(bar)
            self.unfreezing.leave()
            self.read_losses()
            progress.train_seconds = self.train_seconds(wait=True)
            peaks = (memory.peak_bytes(self.accelerator.device), progress.peak_memory_bytes)
            progress.peak_memory_bytes = max(filter(None, peaks), default=None)
            self.check_weights()
            if self.breaks.all_stop():
                self.save()
                self.breaks.stop()

    def take_steps(self, bar: Any) -> None:
        progress, config = self.progress, self.config
        self.started = time.perf_counter()
        ended = progress.out_of_time or progress.step >= self.total_steps
        for size, window in () if ended else self.windows():
            self.optimizer_step(window)
            progress.step += 1
            progress.batches_done += size
            bar.update()
            due = self.breaks.due(progress.step, self.train_seconds())
            by_steps = config.save_steps is not None and progress.step % config.save_steps == 0
            if by_steps or due.save or progress.step % 10 == 0:
                self.read_losses()
                bar.set_postfix(self.describe(), refresh=False)
            if by_steps or due.save:
                progress.train_seconds = self.train_seconds(wait=True)
                self.unfreezing.leave()
                self.check_weights()
                self.save()
                self.unfreezing.enter(progress.epoch)
                self.started = time.perf_counter()
            if progress.step >= self.total_steps:
                break
            progress.out_of_time = due.end
            if due.end or due.stop:
                break

    def windows(self) -> Iterator[tuple[int, list[tuple[Share, Batch]]]]:
        """The accumulation windows that are left of this epoch, and of how many batches they are.

        These count what is done, whatever parts they are divided into.
        """
        batches_of_all = epoch_batches(
            len(self.data),
            self.config.batch_size,
            seed=self.seed,
            epoch=self.progress.epoch,
            lengths=self.lengths,
        )
        equal, size = self.equal, self.config.gradient_accumulation_steps
        parts = [[b] if equal is None else equal_parts(b, equal) for b in batches_of_all]
        windows = [list(chain(*parts[i : i + size])) for i in range(0, len(parts), size)]
        ends = accumulate(map(len, windows))
        done = self.progress.batches_done
        left = [window for end, window in zip(ends, windows, strict=True) if end > done]
        smaller = [
            list(chain(*(divided(batch, self.most_at_once) for batch in window))) for window in left
        ]
        shares = split_batches(
            list(chain(*smaller)),
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        batches = load_batches(
            self.data,
            shares,
            self.objective.collate,
            device=self.accelerator.device,
            num_workers=self.config.num_workers,
        )
        pairs = zip(shares, batches, strict=True)
        for window, batches_of_window in zip(left, smaller, strict=True):
            yield len(window), list(islice(pairs, len(batches_of_window)))

    def optimizer_step(self, window: list[tuple[Share, Batch]]) -> None:
        accelerator = self.accelerator
        units = [self.objective.loss_units(b) if share.counts else 0 for share, b in window]
        all_units = self.breaks.add_up(float(sum(units)), self.train_seconds())
        losses = []
        for index, (_, batch) in enumerate(window):
            # Wrapped models average gradients over processes: undo it, divide by the sum once.
            scale = units[index] * accelerator.num_processes / all_units
            if index == len(window) - 1:
                losses.append(self.backward(batch, scale))
            else:
                with accelerator.no_sync(self.model):
                    losses.append(self.backward(batch, scale))
        self.penalty.add_gradients(accelerator.scaler)
        if self.config.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.trainable, self.config.max_grad_norm)
        self.stepper.step()
        if self.schedule is not None and not accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        for parameter in self.trainable:
            parameter.grad = None
        self.pending.add(losses, units)
        self.progress.samples_seen += sum(share.global_size for share, _ in window)

    def backward(self, batch: Batch, scale: float | Tensor) -> Tensor:
        device = self.accelerator.device
        on_device = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        loss: Tensor = self.model(**on_device).loss
        scaled = loss if isinstance(scale, float) and scale == 1.0 else loss * scale
        if self.managed:
            self.accelerator.backward(scaled)
        else:
            scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def check_weights(self) -> None:
        """Before anything is kept of them."""
        check_weights(self.accelerator.unwrap_model(self.model), self.progress.step)

    def read_losses(self) -> None:
        """Bring the losses of the last steps from the device, summed over processes."""
        for loss_sum, units in self.pending.read():
            loss = loss_sum / units
            check_loss(loss, step=len(self.progress.step_losses) + 1)
            self.progress.step_losses.append(loss)
            self.progress.epoch_loss_sum += loss_sum
            self.progress.epoch_units += units

    # -- between epochs -----------------------------------------------------------------------

    def end_epoch(self, bar: Any) -> None:
        metrics = {} if self.objective.evaluate is None else self.objective.evaluate(self.model)
        with signals_wait():
            self.keep_epoch(metrics, bar)

    def keep_epoch(self, metrics: dict[str, Any], bar: Any) -> None:
        progress = self.progress
        progress.epoch += 1
        progress.batches_done = 0
        record = EpochRecord(
            epoch=progress.step / self.steps_per_epoch,
            step=progress.step,
            train_loss=progress.epoch_loss_sum / progress.epoch_units,
            validation=metrics,
        )
        progress.history.append(asdict(record))
        progress.epoch_loss_sum = progress.epoch_units = 0.0
        if metrics:
            self.keep_best(float(metrics[self.objective.metric]))
        self.log(record)
        bar.set_postfix(self.describe(), refresh=False)
        patience = self.config.early_stopping_patience
        stop_early = patience is not None and progress.evaluations_without_gain >= patience
        ended = progress.out_of_time or progress.step >= self.total_steps
        progress.finished = stop_early or ended
        self.save()

    def keep_best(self, value: float) -> None:
        """Keep the parameters of the best evaluation; one that is not finite is never that."""
        progress = self.progress
        sign = 1 if self.objective.greater_is_better else -1
        best = progress.best_metric
        if best is None:
            check_first_metric(self.objective.metric, value, progress.step)
        if best is None or sign * value > sign * best:
            progress.best_metric, progress.best_step = value, progress.step
            progress.evaluations_without_gain = 0
            if self.accelerator.is_main_process:
                bare = self.accelerator.unwrap_model(self.model)
                state.save_best(self.folder, bare, owner=self.owner, step=progress.step)
        else:
            progress.evaluations_without_gain += 1

    def log(self, record: EpochRecord) -> None:
        numbers = {k: v for k, v in record.validation.items() if isinstance(v, float)}
        values = {"train/loss": record.train_loss, "epoch": record.epoch}
        values |= {f"validation/{key}": value for key, value in numbers.items()}
        self.accelerator.log(values, step=record.step)

    def describe(self) -> dict[str, str]:
        """Loss and metric for the progress bar."""
        shown = {}
        if self.progress.step_losses:
            recent = self.progress.step_losses[-10:]
            shown["loss"] = f"{sum(recent) / len(recent):.4f}"
        if self.progress.history and self.progress.history[-1]["validation"]:
            value = self.progress.history[-1]["validation"][self.objective.metric]
            shown[self.objective.metric] = f"{value:.4f}"
        return shown

    def train_seconds(self, *, wait: bool = False) -> float:
        """Of all steps until now; ``wait`` for those that the device still computes."""
        if wait and self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return self.progress.train_seconds + time.perf_counter() - self.started
