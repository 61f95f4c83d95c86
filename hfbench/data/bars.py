"""Progress bars of ``datasets``, for work that is over before one means anything."""

from collections.abc import Iterator
from contextlib import contextmanager

import datasets

QUICK_BELOW_SAMPLES = 20_000  # seconds of work at most


@contextmanager
def bars_for(samples: int) -> Iterator[None]:
    """Within, ``datasets`` draws its bars only where so many samples take long."""
    if samples >= QUICK_BELOW_SAMPLES or not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
