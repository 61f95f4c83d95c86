"""Text classification: a text, or a pair of texts, to one label."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from hfbench.data.bars import bars_for
from hfbench.data.cropping import Facts, describe_texts, text_facts, whole_lengths
from hfbench.data.media import Unreadable
from hfbench.data.tokens import Integers, Padding, Side, TokenSamples
from hfbench.data.unreadable_texts import Reader, no_tokens
from hfbench.errors import UnreadableError, UserError
from hfbench.models import loading
from hfbench.models.vocabulary import check_vocabulary
from hfbench.tasks.base import Agree, BuiltModel, Samples, TaskData
from hfbench.tasks.classification import ClassificationTask
from hfbench.training.batching import equal_parts
from hfbench.training.padding import harmless_side

WHOLE_LENGTH = "tokens before it was cut"  # a column of tokenised texts
SIDES: tuple[Side, ...] = ("right", "left")  # the first that is harmless is used


class TextClassification(ClassificationTask):
    """Texts are tokenised once and stored without padding; a batch is padded to its longest."""

    name = "text_classification"
    modality = "text"
    length_unit = "tokens"
    input_settings = ("max_length",)
    model_class = AutoModelForSequenceClassification

    def load_processor(self) -> Any:
        settings = loading.load_config(self.config.model)
        tokenizer = loading.load_tokenizer(self.config.model)
        if tokenizer.pad_token is None:  # GPT-2
            if tokenizer.eos_token is None:
                raise UserError(
                    f"the tokenizer of {self.config.model.checkpoint!r} has neither a padding nor "
                    "an end token, so texts of different length fit no batch; choose another"
                )
            tokenizer.pad_token = tokenizer.eos_token
        # The advice to pad while tokenising would store the padding.
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        settings.pad_token_id = tokenizer.pad_token_id
        limits = [tokenizer.model_max_length, self._positions(settings)]
        # A tokenizer that knows no limit has a number of 31 digits there.
        self.limit = min((n for n in limits if n is not None and n < 10**9), default=None)
        wanted = self.config.data.max_length
        self.max_length = wanted if self.limit is None else min(wanted, self.limit)
        return tokenizer

    def _positions(self, settings: Any) -> int | None:
        """The longest text in tokens that the network has positions for; None without a limit.

        A table of positions with a padding index (RoBERTa's) starts to count behind that index.
        """
        positions: int | None = getattr(settings, "max_position_embeddings", None)
        if positions is None or positions < 1:  # XLNet states -1
            return None
        offsets = [
            module.padding_idx + 1
            for name, module in loading.build_on_meta(settings, self.model_class).named_modules()
            if isinstance(module, nn.Embedding)
            and "position" in name.rpartition(".")[2]
            and module.padding_idx is not None
        ]
        return positions - max(offsets, default=0)

    def features(
        self, rows: Dataset, title: str, *, keep: bool, unreadable: Unreadable | None = None
    ) -> Samples:
        """``input_ids``, ``attention_mask``, ...: lists of at most ``max_length`` tokens.

        A text of which the tokenizer makes no token cannot be read; if it is so with all of them,
        that is an error.
        """
        texts = [name for name in ("text", "text_pair") if name in rows.column_names]
        tokenizer, max_length = self.processor, self.max_length

        # datasets hashes what this function refers to; a whole config would defeat its cache.
        def tokenize(batch: dict[str, list[str]]) -> dict[str, Any]:
            columns = [batch[name] for name in texts]
            tokenized = tokenizer(*columns, truncation=True, max_length=max_length)
            return {**tokenized, WHOLE_LENGTH: whole_lengths(tokenizer, columns, tokenized)}

        with bars_for(len(rows)):
            tokenized = rows.map(
                tokenize, batched=True, remove_columns=texts, desc=f"tokenize {title}"
            )
        good = self._readable(rows, tokenized, title, unreadable)
        whole = good[WHOLE_LENGTH][:]
        samples = TokenSamples.of_dataset(good.remove_columns(WHOLE_LENGTH), self.padding)
        samples.facts = text_facts(whole, samples.lengths())
        return samples

    def _readable(
        self, rows: Dataset, tokenized: Dataset, title: str, unreadable: Unreadable | None
    ) -> Dataset:
        """Without the texts that have no token, which are an error or go to ``unreadable``."""
        samples = TokenSamples.of_dataset(tokenized.remove_columns(WHOLE_LENGTH), self.padding)
        counts = self.reader.of_texts(self._tokens(samples), samples.offsets)
        empty = np.flatnonzero(counts == 0)
        if len(empty) == 0:
            return tokenized
        if len(empty) == len(samples):
            raise no_tokens(self.config.model.checkpoint, title, rows["text"][0])
        for row in empty.tolist():
            if unreadable is None:
                name = f"{title} row {row}"
                raise UnreadableError(name, f"{rows['text'][row]!r}, which has no token")
            unreadable[row] = f"no token in {rows['text'][row]!r}"
        return tokenized.select(np.flatnonzero(counts))

    def describe_inputs(self, facts: Facts, summary: dict[str, Any]) -> None:
        describe_texts(facts, summary, max_length=self.max_length, limit=self.limit)

    def prepare_data(self) -> TaskData:
        data = super().prepare_data()
        splits = {"train": data.train, "validation": data.validation, "test": data.test}
        shares = {
            role: self.reader.unknown_share(self._tokens(cast(TokenSamples, split)))
            for role, split in splits.items()
        }
        data.summary["unknown_tokens"] = shares
        data.summary["notes"].extend(self.reader.describe(shares))
        return data

    @property
    def reader(self) -> Reader:
        return Reader.of(self.processor)

    def _tokens(self, samples: TokenSamples) -> Integers:
        return samples.features[self.processor.model_input_names[0]]

    @property
    def padding(self) -> Padding:
        """The tokenizer's, and widths that tensor cores like where there is a GPU."""
        usual = Padding.of(self.processor, multiple_of=8 if torch.cuda.is_available() else 1)
        return replace(usual, side=None, multiple_of=1) if self.equal_lengths else usual

    def settle_padding(
        self, model: nn.Module, splits: Sequence[Samples], agree: Agree
    ) -> str | None:
        """Pad where it is harmless, which is measured; where it is not, nothing is padded.

        The tokenizer pads on that side from now on, also the saved one.
        """
        own, usual = self.processor.padding_side, self.padding
        samples = _of_every_length(cast(Sequence[TokenSamples], splits))
        if len(samples[0]["input_ids"]) == len(samples[-1]["input_ids"]) and usual.multiple_of == 1:
            return None
        device = next(model.parameters()).device

        def answers(batch: Sequence[Any], side: Side) -> Tensor:
            # A sample alone is not padded at all.
            padding = replace(
                usual, side=side, multiple_of=usual.multiple_of if len(batch) > 1 else 1
            )
            together = TokenSamples.of_samples(batch, padding)
            inputs = together.read_batch(range(len(batch)), device)
            return self.predictions(model(**inputs), inputs)

        side: Side | None = agree(harmless_side(model, answers, samples, SIDES))
        self.equal_lengths = side is None
        if side is not None:
            self.processor.padding_side = side
        for split in splits:
            cast(TokenSamples, split).padding = self.padding
        if side is None:
            return (
                f"{type(model).__name__} takes padding for text, so that an answer would depend on "
                "the other texts of its batch: nothing is padded, and only texts of one length are "
                "computed together"
            )
        if side == own:
            return None
        return (
            f"texts are padded on the {side} (the tokenizer: on the {own}), where the answer to "
            "one is the same alone and in a batch"
        )

    def complete_config(self, config: Any) -> None:
        config.pad_token_id = self.processor.pad_token_id

    def build_model(self, data: TaskData) -> BuiltModel:
        built = super().build_model(data)
        check_vocabulary(built.model, len(self.processor), self.config.model.checkpoint)
        return built

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Every feature: (batch, longest), int64; ``labels``: (batch,), int64."""
        together = TokenSamples.of_samples(samples, self.padding)
        return together.read_batch(range(len(samples)), torch.device("cpu"))

    def check_batch(self, test: Samples) -> dict[str, Tensor]:
        """Texts of one length where nothing may be padded."""
        if not self.equal_lengths:
            return super().check_batch(test)
        part = equal_parts(range(min(8, len(test))), self.sample_lengths(test))[0]
        return self.collate([test[index] for index in part])

    def sample_lengths(self, split: Samples) -> list[int]:
        """Tokens."""
        return cast(TokenSamples, split).lengths()


def _of_every_length(splits: Sequence[TokenSamples]) -> list[dict[str, Any]]:
    """The shortest text of all, one of middle length, the longest; without labels."""
    places = [(n, split, i) for split in splits for i, n in enumerate(split.lengths())]
    places.sort(key=lambda place: place[0])
    chosen = [places[0], places[len(places) // 2], places[-1]]
    samples = [split[index] for _, split, index in chosen]
    return [{k: v for k, v in sample.items() if k != "labels"} for sample in samples]
