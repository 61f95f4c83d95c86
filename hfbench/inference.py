"""Answers of a trained model to new inputs, in batches and in the order of the inputs."""

import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from hfbench.tasks.base import Answer, PredictingTask
from hfbench.training.batching import Share, like_batches, load_batches
from hfbench.training.progress import progress_options


def answer_inputs(
    task: PredictingTask, model: nn.Module, rows: Dataset, *, batch_size: int, count: int | None
) -> list[Answer]:
    """At most ``count`` candidates for each row, on the device of ``model``; None: what it says.

    Raises UserError for a row that cannot be read.
    """
    device = next(model.parameters()).device
    samples = task.features(rows, "input", keep=False)
    task.settle_padding(model, [samples], lambda side: side)
    slack = 0.0 if task.equal_lengths else 1.0
    batches = like_batches(len(samples), batch_size, task.sample_lengths(samples), slack=slack)
    found: dict[int, Answer] = {}
    bar = tqdm(total=len(samples), desc="predict", unit="input", **progress_options(True))
    if task.sampling is not None:
        torch.manual_seed(task.sampling.seed)
    with torch.no_grad(), bar:
        shares = [Share(indices) for indices in batches]
        loaded = load_batches(samples, shares, task.collate, device=device)
        for indices, batch in zip(batches, loaded, strict=True):
            on_device = {key: value.to(device) for key, value in batch.items()}
            answers = (
                task.answer_whole(model, on_device)
                if count is None
                else task.answer(model, on_device, count)
            )
            found.update(zip(indices, answers, strict=True))
            bar.update(len(indices))
    return [found[index] for index in range(len(samples))]
