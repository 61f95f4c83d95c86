"""What of a checkpoint's weights a network has: lines for people. No large library."""

from collections.abc import Iterator, Sequence

from hfbench.results import REORDERED_HEAD, WeightsRecord

_SHOWN = 4


def weights_lines(weights: WeightsRecord | None) -> list[str]:
    """What is new, what is left over and how the head came about; nothing without a checkpoint."""
    return [] if weights is None else list(_lines(weights))


def _lines(weights: WeightsRecord) -> Iterator[str]:
    if weights.removed_prefix is not None:
        yield (
            f"weights: {weights.removed_prefix!r} is removed from the names in the file, which "
            "other programs do not do"
        )
    if weights.merged is not None:
        yield f"weights: the checkpoint is a {weights.merged}, merged into it"
    head = f"the head is {weights.head}"
    if weights.head == REORDERED_HEAD:
        head = "the head is the checkpoint's own, its rows in the data's order of labels"
    new = [f"{part} ({_listed(names)})" for part, names in weights.new.items()]
    yield f"weights: {head}; " + (f"new are {', '.join(new)}" if new else "nothing is new")
    if weights.reshaped:
        shapes = [f"{name} {shape}" for name, shape in weights.reshaped.items()]
        yield f"weights: of another shape in the file are {_listed(shapes)}"
    if weights.left_over:
        left = [f"{module} ({_tensors(count)})" for module, count in weights.left_over.items()]
        yield f"weights: the file has more, which is left out: {_listed(left)}"


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _listed(texts: Sequence[str]) -> str:
    more = f", {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
