"""Compute a prefix for every sample of a split and store it, shared out among the processes."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from hfbench.training.batching import (
    Collate,
    SampleSource,
    Share,
    like_batches,
    load_batches,
)
from hfbench.training.company import company, meet, told_by_main
from hfbench.training.prefix import store
from hfbench.training.prefix.cut import Cut
from hfbench.training.progress import progress_options


def write_entry(
    key: str,
    cut: Cut,
    samples: SampleSource,
    collate: Collate,
    *,
    batch_size: int,
    lengths: Sequence[int] | None,
    slack: float,
    accelerator: Accelerator,
    title: str,
    seconds_before: float = 0.0,
) -> str | None:
    """Store the prefix's output for every sample; why it could not be stored, or None.

    ``lengths`` are those of the samples; they may differ in a batch by the share ``slack``, above 0
    only where the model has as many positions. No padding is stored. ``seconds_before`` is what
    the stored beginning of the prefix had taken. All processes must call this together, in eval
    mode and without gradients.
    """
    main = accelerator.is_main_process
    folder, refusal = _agreed(lambda: store.start(key), main)
    if folder is None:
        return refusal
    rank, processes = accelerator.process_index, accelerator.num_processes
    batches = like_batches(len(samples), batch_size, lengths, slack=slack)
    mine = [Share(indices) for indices in batches[rank::processes]]
    trimmed = bool(slack) and cut.rows_have_length
    problem: str | None = None
    with _removed_on_failure(folder):
        writer = store.RowWriter(folder, rank)
        started = time.perf_counter()
        bar = tqdm(total=len(mine), desc=f"frozen prefix {title}", **progress_options(main))
        with bar:
            loaded = load_batches(samples, mine, collate, device=accelerator.device)
            for share, batch in zip(mine, loaded, strict=True):
                on_device = {name: value.to(accelerator.device) for name, value in batch.items()}
                rows = cut.output(on_device)
                try:
                    writer.add(
                        share.indices,
                        rows,
                        [lengths[i] for i in share.indices] if trimmed and lengths else None,
                    )
                except OSError as error:
                    problem = f"{folder.parent}: {error.strerror or error}"
                    break
                bar.update()
        try:
            writer.close()
        except OSError as error:
            problem = problem or f"{folder.parent}: {error.strerror or error}"
        if not all_agree(accelerator, problem is None):
            meet()
            if main:
                shutil.rmtree(folder)
            return problem or "another process could not write"
        seconds = seconds_before + time.perf_counter() - started

        def finish() -> Path:
            return store.finish(folder, key, writer, parts=processes, seconds=seconds)

        return _agreed(finish, main)[1]


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """By every process: the main one may have been killed."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _agreed(act: Callable[[], Path], main: bool) -> tuple[Path | None, str | None]:
    """What ``act`` gives on the main process, the only one that calls it, or why it could not."""
    path, problem = None, None
    if main:
        try:
            path = act()
        except OSError as error:
            problem = f"{store.entries_folder()}: {error.strerror or error}"
    return told_by_main((path, problem))


def all_agree(accelerator: Accelerator, yes: bool) -> bool:
    """Whether every process says yes."""
    if accelerator.num_processes == 1:
        return yes
    company().wait_for_all()  # one may have worked longer than a collective waits
    votes = torch.tensor(int(yes), device=accelerator.device)
    return bool(accelerator.reduce(votes, "sum") == accelerator.num_processes)
