"""How many tokens a model can read, and whether its tokenizer has more."""

from typing import Any

from torch import nn

from hfbench.errors import UserError


def known_tokens(model: nn.Module) -> int | None:
    """The number of rows of the model's token embedding; None for one without such a table.

    CANINE hashes characters and says that it has no embedding. I-BERT's has a weight and no count.
    What Perceiver calls its input embedding are its latents: there the configuration counts.
    """
    network: Any = model
    try:
        table: Any = network.get_input_embeddings()
    except NotImplementedError:
        table = None
    if isinstance(table, nn.Module):
        weight: Any = getattr(table, "weight", None)
        count = getattr(table, "num_embeddings", None)
        if count is None and weight is not None and weight.ndim == 2:
            count = weight.shape[0]
    else:
        count = getattr(getattr(network, "config", None), "vocab_size", None)
    return None if count is None else int(count)


def check_vocabulary(model: nn.Module, tokens: int, checkpoint: str) -> None:
    """Raise UserError where a tokenizer of ``tokens`` tokens has some that the model cannot read.

    ``checkpoint``: where both come from, for people.
    """
    known = known_tokens(model)
    if known is not None and tokens > known:
        raise UserError(
            f"checkpoint {checkpoint!r}: its tokenizer has {tokens} tokens and its embedding "
            f"{known}; they do not belong together"
        )
