"""Text written by a causal language model, and how like a reference it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hfbench.errors import UserError


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
) -> list[list[int]]:
    """The tokens that follow on each prompt, ``count`` times for each, without the end token.

    input_ids, attention_mask: (prompts, longest), padded on the left. ``positions``: how many
    tokens the model reads at most; None without a limit. The prompts are shorter than that.
    """
    from transformers import GenerationConfig  # here, because training needs none of it

    width = input_ids.shape[1]
    room = sampling.max_new_tokens if positions is None else positions - width
    assert room > 0, f"{width} tokens leave no position"
    settings: dict[str, Any] = {"do_sample": False}
    if sampling.random:
        chosen = {"temperature": sampling.temperature or 1.0, "top_p": sampling.top_p or 1.0}
        settings = {"do_sample": True, "top_k": 0, "num_return_sequences": count, **chosen}
    written = model.generate(
        input_ids=input_ids,
        attention_mask=attention_mask,
        generation_config=GenerationConfig(
            max_new_tokens=min(room, sampling.max_new_tokens),
            eos_token_id=end,
            pad_token_id=end,
            **settings,
        ),
    )
    return [_until(row, end) for row in written[:, width:].tolist()]


def generation_scores(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L (F-measures from 0 to 1, means over texts) and BLEU (0 to 100).

    ROUGE as in Lin 2004, by the package rouge-score, without stemming. BLEU as in Papineni et al.
    2002, by sacrebleu: of the whole corpus, its tokeniser 13a, its exponential smoothing.
    """
    from rouge_score.rouge_scorer import RougeScorer  # here, because only completions need them
    from sacrebleu.metrics.bleu import BLEU

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(kinds)
    found = [scorer.score(r, w) for w, r in zip(written, references, strict=True)]
    scores = {kind: sum(one[kind].fmeasure for one in found) / len(found) for kind in kinds}
    return scores | {"bleu": BLEU().corpus_score(list(written), [list(references)]).score}


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
