"""Between two steps: end because a signal asks for it, save by the clock, end by the clock.

All processes decide alike, after the same step: what each of them wants travels with the number of
loss units that every step adds up anyway.
"""

import time
from dataclasses import dataclass
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from hfbench.config import TrainingConfig
from hfbench.interrupts import asked_to_end, interrupted_by_all

READ_EVERY = 10  # steps: reading what other processes want makes a GPU wait


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    stop: bool = False  # a signal reached one of the processes
    save: bool = False  # training.save_minutes are over
    end: bool = False  # training.max_minutes are over


class Breaks:
    """The clocks of a training and what its processes want."""

    def __init__(self, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.wanted: Tensor | None = None  # (3,), how many processes want what
        self.saved()

    def saved(self) -> None:
        """A state was saved just now, or the training begins."""
        self.saved_at = time.monotonic()

    def add_up(self, units: float, train_seconds: float) -> float | Tensor:
        """``units`` of all processes together; it stays on the device: no waiting."""
        if self.accelerator.num_processes == 1:
            return units
        own = self._own(train_seconds)
        values = torch.tensor([units, own.stop, own.save, own.end], dtype=torch.float32)
        on_device = values.to(self.accelerator.device, non_blocking=True)
        shared: Tensor = self.accelerator.reduce(on_device, "sum")
        self.wanted = shared[1:]
        return shared[0]

    def due(self, step: int, train_seconds: float) -> Due:
        """What is to be done after ``step``; ``train_seconds``: of the whole training so far."""
        if self.wanted is None:
            return self._own(train_seconds)
        if self.accelerator.device.type != "cpu" and step % READ_EVERY:
            return Due()
        return Due(*(count > 0 for count in self.wanted.tolist()))

    def all_stop(self) -> bool:
        """Whether a signal reached one of the processes, asked of all now."""
        asked = asked_to_end() is not None
        if self.accelerator.num_processes > 1:
            own = torch.tensor(float(asked), device=self.accelerator.device)
            asked = bool(self.accelerator.reduce(own, "sum") > 0)
        return asked

    def stop(self) -> NoReturn:
        """Raise Interrupted on every process."""
        numbers = [asked_to_end() or 0]
        if self.accelerator.num_processes > 1:
            numbers = gather_object(numbers)
        raise interrupted_by_all(next(filter(None, numbers)))

    def _own(self, train_seconds: float) -> Due:
        """What this process wants; the main one's clocks are those of all."""
        stop = asked_to_end() is not None
        if not self.accelerator.is_main_process:
            return Due(stop)
        save, end = self.config.save_minutes, self.config.max_minutes
        return Due(
            stop,
            save is not None and time.monotonic() - self.saved_at >= 60 * save,
            end is not None and train_seconds >= 60 * end,
        )
