"""Networks that leave their sparse attention for ever when they meet a short batch (BigBird).

Which attention a long text gets would depend on what the model met before, and a saved model would
begin anew.
"""

from typing import Any

from torch import nn

FULL = "original_full"


def settle_sparse_attention(model: nn.Module, shortest: int | None) -> str | None:
    """Give a model full attention from the start where data would make it so at some moment.

    Args:
        shortest: number of tokens of the shortest text; None where texts have no lengths.

    Returns what was done, for people; None where nothing was.

    transformers decides so in ``BigBirdModel.forward`` (modeling_big_bird.py).
    """
    config: Any = getattr(model, "config", None)
    bodies: list[Any] = [m for m in model.modules() if hasattr(m, "set_attention_type")]
    if shortest is None or getattr(config, "attention_type", None) != "block_sparse" or not bodies:
        return None
    least = (5 + 2 * config.num_random_blocks) * config.block_size
    if shortest > least:
        return None
    for body in bodies:
        body.set_attention_type(FULL)
    config.attention_type = FULL
    return (
        f"the shortest text has {shortest} tokens, and sparse attention needs more than {least}: "
        f"all texts get full attention, and the saved model has attention_type={FULL}"
    )
