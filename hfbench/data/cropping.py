"""What of the inputs a model does not get to see, counted and said."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Facts = defaultdict[str, float]  # what was done to the samples of a split: sums by name

TEXTS, CUT_TEXTS = "texts", "texts that are cut"
TOKENS, CUT_TOKENS = "tokens", "tokens that are cut"
CLIPS, CROPPED_CLIPS = "clips", "clips that are cropped"
SECONDS, CROPPED_SECONDS = "seconds", "seconds that are cropped"
CLIPS_AT = "clips at Hz: "  # with a rate behind it
SEVERAL_CHANNELS = "clips of several channels"

_PAIRS_AT_ONCE = 64  # that are tokenised once more without a limit, only to be counted


def whole_lengths(
    tokenizer: Any, columns: Sequence[Sequence[str]], cut: Mapping[str, Any]
) -> list[int]:
    """Tokens that every text, or pair of texts, has without truncation.

    ``cut`` is what the tokenizer makes of the columns with it. A tokenizer in Rust has the rest
    of a single text at hand; others, and all for pairs, read once more what has full length.
    """
    ids = tokenizer.model_input_names[0]
    lengths = [len(tokens) for tokens in cut[ids]]
    encodings = getattr(cut, "encodings", None)
    if encodings is not None and len(columns) == 1:
        added = tokenizer.num_special_tokens_to_add()
        return [
            length + sum(len(rest) - added for rest in encoding.overflowing)
            for length, encoding in zip(lengths, encodings, strict=True)
        ]
    full = [row for row, length in enumerate(lengths) if length >= max(lengths)]
    for start in range(0, len(full), _PAIRS_AT_ONCE):
        rows = full[start : start + _PAIRS_AT_ONCE]
        whole = tokenizer(*([texts[row] for row in rows] for texts in columns), verbose=False)[ids]
        for row, tokens in zip(rows, whole, strict=True):
            lengths[row] = len(tokens)
    return lengths


def text_facts(whole: Sequence[int], kept: Sequence[int]) -> dict[str, float]:
    """Of the tokens of every text, before and after they were cut."""
    return {
        TEXTS: len(whole),
        TOKENS: sum(whole),
        CUT_TEXTS: sum(before > after for before, after in zip(whole, kept, strict=True)),
        CUT_TOKENS: sum(whole) - sum(kept),
    }


def describe_texts(
    facts: Mapping[str, float], summary: dict[str, Any], *, max_length: int, limit: int | None
) -> None:
    """Add to the summary how many texts end at ``max_length`` tokens, and to its notes if any do.

    ``limit``: tokens that the network takes at most; None where it takes any number.
    """
    texts, cut = round(facts[TEXTS]), round(facts[CUT_TEXTS])
    tokens, lost = round(facts[TOKENS]), round(facts[CUT_TOKENS])
    summary["cropped"] = {
        "max_length": max_length,
        "texts": cut,
        "of_texts": texts,
        "tokens": lost,
        "of_tokens": tokens,
    }
    if not cut:
        return
    most = "any number" if limit is None else f"at most {limit:,}"
    change = f"data.max_length sets it, the network takes {most}"
    if limit is not None and max_length >= limit:
        change = "as many as the network takes"
    summary["notes"].append(
        f"{cut:,} of {texts:,} texts are cut at {max_length:,} tokens ({change}): "
        f"{share(lost, tokens)} of all tokens are left out"
    )


def describe_clips(
    facts: Mapping[str, float], summary: dict[str, Any], *, sample_rate_hz: int, max_seconds: float
) -> None:
    """Add to the summary, and to its notes, what was cropped, resampled and averaged."""
    clips, cropped = round(facts[CLIPS]), round(facts[CROPPED_CLIPS])
    seconds, lost = facts[SECONDS], facts[CROPPED_SECONDS]
    summary["cropped"] = {
        "max_seconds": max_seconds,
        "clips": cropped,
        "of_clips": clips,
        "seconds": round(lost, 3),
        "of_seconds": round(seconds, 3),
    }
    if cropped:
        summary["notes"].append(
            f"{cropped:,} of {clips:,} clips are longer than {max_seconds:g} s and keep their "
            f"middle: {share(lost, seconds)} of the recorded time is left out"
        )
    rates = {int(name.removeprefix(CLIPS_AT)): n for name, n in facts.items() if CLIPS_AT in name}
    others = {rate: round(n) for rate, n in sorted(rates.items()) if rate != sample_rate_hz}
    summary["resampled"] = {f"{rate} Hz": count for rate, count in others.items()}
    if others:
        counts = ", ".join(f"{count:,} clips from {rate:,} Hz" for rate, count in others.items())
        summary["notes"].append(f"resampled to {sample_rate_hz:,} Hz: {counts}")
    several = round(facts[SEVERAL_CHANNELS])
    summary["averaged_channels"] = several
    if several:
        summary["notes"].append(f"the channels of {several:,} clips are averaged to one")


def share(part: float, whole: float) -> str:
    """A percentage with two digits, more where it is nearly everything."""
    percent = 100 * part / whole
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.1f} %"
