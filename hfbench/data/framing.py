"""What a tokenizer's own call puts around a text, such as the <bos> of Gemma and Llama."""

from dataclasses import dataclass
from typing import Any

from hfbench.errors import UserError

_PLAIN = ("a", "the", "1", ".")  # of which every tokenizer makes something


@dataclass(frozen=True)
class Frame:
    """Token numbers in front of a text and behind it."""

    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


def frame_of(tokenizer: Any) -> Frame:
    """Found by what the call adds to a plain text, whatever the tokens are called.

    Raises UserError for a tokenizer that gives no token for any plain text, or others inside its
    frame than without one.
    """
    for text in _PLAIN:
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        if plain:
            break
    else:
        raise UserError(
            f"the tokenizer ({type(tokenizer).__name__}) gives no token for plain texts such as "
            f"{', '.join(map(repr, _PLAIN))}: its files are incomplete, or it is for something else"
        )
    framed = tokenizer(text)["input_ids"]
    for start in range(len(framed) - len(plain) + 1):
        end = start + len(plain)
        if framed[start:end] == plain:
            return Frame(tuple(framed[:start]), tuple(framed[end:]))
    raise UserError(
        f"the tokenizer ({type(tokenizer).__name__}) gives {framed} for {text!r} with special "
        f"tokens and {plain} without, so what it puts in front of a text is not known"
    )
