"""Text written by a causal language model, and how like a reference it is."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.errors import UserError
from hfbench.training.padding import harmless_side

_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IN_WORDS = ("L", "M", "N")  # first letters of Unicode's categories: letters, marks, digits


@dataclass(frozen=True)
class Sampling:
    """How a text is continued: greedily, or by chance where a temperature or top_p is given."""

    max_new_tokens: int = 64  # fewer where the model's positions end before
    temperature: float | None = None  # logits are divided by it
    top_p: float | None = None  # the most probable tokens with this mass (Holtzman et al. 2020)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature <= 0:
            raise UserError(
                f"temperature={self.temperature:g} must be above 0; leave it out to write greedily"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p:g} must be in (0, 1]")

    @property
    def random(self) -> bool:
        """Whether chance decides."""
        return self.temperature is not None or self.top_p is not None


def generate(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    sampling: Sampling,
    *,
    count: int,
    end: int,
    positions: int | None,
    together: bool,
) -> list[list[int]]:
    """The tokens that follow on each prompt, ``count`` times for each, without the end token.

    input_ids, attention_mask: (prompts, longest), padded on the left. ``positions``: how many
    tokens the model reads at most; None without a limit. The prompts are shorter than that, and a
    prompt is continued as far as its own length allows, whatever stands beside it. Without
    ``together`` it is alone (see ``continues_together``).
    """
    from transformers import GenerationConfig  # here, because training needs none of it

    settings: dict[str, Any] = {"do_sample": False, "eos_token_id": end, "pad_token_id": end}
    if sampling.random:
        chosen = {"temperature": sampling.temperature or 1.0, "top_p": sampling.top_p or 1.0}
        settings |= {"do_sample": True, "top_k": 0, "num_return_sequences": count, **chosen}
    lengths = attention_mask.sum(dim=1).tolist()
    most = sampling.max_new_tokens
    rooms = [most if positions is None else min(most, positions - length) for length in lengths]
    assert min(rooms) > 0, f"{max(lengths)} tokens leave no position"
    found: dict[int, list[list[int]]] = {}
    groups = [(room, 0 if together else row) for row, room in enumerate(rooms)]
    for group in sorted(set(groups)):
        rows, room = [row for row, own in enumerate(groups) if own == group], group[0]
        width = max(lengths[row] for row in rows)
        with _own_settings_aside(model):
            written = model.generate(
                input_ids=input_ids[rows, -width:],
                attention_mask=attention_mask[rows, -width:],
                generation_config=GenerationConfig(max_new_tokens=room, **settings),
            )
        texts = [_until(tokens, end) for tokens in written[:, width:].tolist()]
        each = len(texts) // len(rows)
        found |= {row: texts[i * each : (i + 1) * each] for i, row in enumerate(rows)}
    return [text for row in range(len(rooms)) for text in found[row]]


def continues_together(model: Any, vocabulary: int, *, end: int) -> bool:
    """Whether the model continues two prompts of different length as each of them alone.

    BART's decoder counts its positions from the padding, RWKV reads it and mixes up its states.
    ``vocabulary``: how many tokens there are to try it with.
    """
    from transformers import GenerationConfig

    settings: dict[str, Any] = {"do_sample": False, "pad_token_id": end, "max_new_tokens": 2}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (2, 8), generator=generator).to(device)
    lengths = (8, 4)

    def next_tokens(rows: Sequence[int], side: str) -> Tensor:
        width = max(lengths[row] for row in rows)
        own = torch.tensor([[lengths[row]] for row in rows], device=device)
        mask = (torch.arange(width, device=device) >= width - own).long()
        with _own_settings_aside(model):
            written = model.generate(
                input_ids=tokens[list(rows), -width:].where(mask.bool(), end),
                attention_mask=mask,
                generation_config=GenerationConfig(**settings),
            )
        return torch.cat(list(written.logits), dim=1).float()

    return harmless_side(model, next_tokens, (0, 1), ("left",)) is not None


@contextmanager
def _own_settings_aside(model: nn.Module) -> Iterator[None]:
    """Within, the checkpoint's generation_config is empty.

    transformers takes from it whatever the given one leaves out: penalties, forbidden tokens.
    """
    from transformers import GenerationConfig

    holders = [module for module in model.modules() if "generation_config" in vars(module)]
    kept: dict[Any, Any] = {module: module.generation_config for module in holders}
    for module in kept:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, settings in kept.items():
            module.generation_config = settings


def generation_scores(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L (F-measures from 0 to 1, means over texts) and BLEU (0 to 100).

    ROUGE as in Lin 2004, by the package rouge-score, without stemming, of :func:`words`. BLEU as in
    Papineni et al. 2002, by sacrebleu: of the whole corpus, its exponential smoothing, its
    tokeniser 13a; where the references are Chinese for the most part zh, Japanese char.
    """
    from rouge_score.rouge_scorer import RougeScorer  # here, because only completions need them
    from sacrebleu.metrics.bleu import BLEU

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(kinds, tokenizer=_Words())
    found = [scorer.score(r, w) for w, r in zip(written, references, strict=True)]
    scores = {kind: sum(one[kind].fmeasure for one in found) / len(found) for kind in kinds}
    bleu = BLEU(tokenize=_bleu_tokeniser(references))
    return scores | {"bleu": bleu.corpus_score(list(written), [list(references)]).score}


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, marks and digits; Han and kana one character each.

    Of ASCII text what rouge-score's own tokeniser finds, which drops all other characters.

    >>> words("The cat's café, 猫も")
    ['the', 'cat', 's', 'café', '猫', 'も']
    """
    spaced = (
        " "
        if not _in_word(letter)
        else f" {letter} "
        if re.match(f"[{_HAN}{_KANA}]", letter)
        else letter
        for letter in text.lower()
    )
    return "".join(spaced).split()


class _Words:
    """``words`` as rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _bleu_tokeniser(references: Sequence[str]) -> str:
    """By what most letters of the references are; 13a knows words between spaces only."""
    letters = "".join(letter for text in references for letter in text if _in_word(letter))
    kana, han = (len(re.findall(f"[{script}]", letters)) for script in (_KANA, _HAN))
    if 2 * (kana + han) <= len(letters):
        return "13a"
    return "char" if 10 * kana > han else "zh"  # zh takes kana for parts of words


def _in_word(letter: str) -> bool:
    return unicodedata.category(letter).startswith(_IN_WORDS)


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
