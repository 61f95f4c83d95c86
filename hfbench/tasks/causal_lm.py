"""Causal language modelling: the next token of a text, or of a completion that follows a prompt."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hfbench.data.framing import frame_of
from hfbench.data.packing import complete, pack, tokens_to_predict
from hfbench.data.texts import limit_of, load_texts
from hfbench.data.tokens import IGNORED, Integers, Padding, TokenSamples
from hfbench.data.unreadable_texts import Reader, no_tokens
from hfbench.errors import UserError
from hfbench.models import adapted, loading
from hfbench.models.vocabulary import check_vocabulary
from hfbench.tasks.base import Answer, BuiltModel, Candidate, PredictingTask, Samples, TaskData
from hfbench.tasks.generation import Sampling, continues_together, generate, generation_scores
from hfbench.tasks.language_scores import (
    language_metrics,
    predicted_tokens,
    token_bytes,
    token_scores,
)

GENERATION_BATCH = 16  # prompts that are continued together to be scored
CHECK_TOKENS = 32  # of one text: a whole batch's logits over a vocabulary would fill the disk


class CausalLM(PredictingTask):
    """Plain texts are packed into blocks; of prompts with completions only these are learnt.

    A sample: ``input_ids`` and ``labels``, lists of at most ``max_length`` tokens, the labels
    IGNORED where nothing is to be predicted. New inputs: ``input_ids`` and ``attention_mask``.
    """

    name = "causal_lm"
    primary_metric = "perplexity"
    greater_is_better = False
    length_unit = "tokens"
    tests_untrained = True
    modality = "text"
    answer_name = "continuation"
    model_class = AutoModelForCausalLM
    input_settings = ("separator",)
    sampling = Sampling()
    together: bool | None = None  # whether prompts may share a batch, once it is measured
    # of the test split's first rows: the tokens of prompt and separator, and the whole completion
    to_write: tuple[tuple[list[int], str], ...] = ()

    def load_processor(self) -> Any:
        tokenizer = loading.load_tokenizer(self.config.model)
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"the tokenizer of {self.config.model.checkpoint!r} has no end-of-text token "
                "(eos_token), so nothing can stand between two texts; choose another"
            )
        settings = loading.load_config(self.config.model)
        self.positions: int | None = getattr(settings, "max_position_embeddings", None)
        self.max_length = self.config.data.max_length
        if self.positions is not None:
            self.max_length = min(self.max_length, self.positions)
        self.end: int = tokenizer.eos_token_id
        self.before = frame_of(tokenizer).before
        least = 1 + max(1, len(self.before))
        if self.max_length < least:
            raise UserError(f"data.max_length={self.max_length} must be at least {least} tokens")
        return tokenizer

    def prepare_data(self) -> TaskData:
        loading.require_task(self.config.model, self.name)
        self.processor = self.load_processor()  # first: a wrong checkpoint fails at once
        splits = load_texts(self.config.data)
        summary, shares = dict(splits.summary), {}
        samples: dict[str, TokenSamples] = {}
        notes: list[str] = summary["notes"]
        for role in ("train", "validation", "test"):
            rows, tokens = self._readable(getattr(splits, role), role, notes)
            shares[role] = self.reader.unknown_share(_joined(tokens.values()))
            make = self._completions if "completion" in tokens else self._blocks
            samples[role] = make(rows, tokens, role, notes)
            if tokens_to_predict(samples[role]) == 0:
                raise UserError(
                    f"{role} has no token to predict: its {len(rows):,} texts are empty for the "
                    f"tokenizer, or cut to nothing by data.max_length={self.max_length}; raise "
                    "that, or take longer texts"
                )
        if self.before:
            begin = "".join(self.processor.convert_ids_to_tokens(list(self.before)))
            notes.append(f"texts and blocks of texts begin with {begin}, as the tokenizer puts it")
        notes.extend(self.reader.describe(shares))
        summary |= {role: len(split) for role, split in samples.items()}
        summary["unknown_tokens"] = shares
        return TaskData(
            train=samples["train"],
            validation=samples["validation"],
            test=samples["test"],
            label_names=(),
            summary=summary,
        )

    @property
    def reader(self) -> Reader:
        return Reader.of(self.processor)

    def _readable(
        self, rows: Dataset, role: str, notes: list[str]
    ) -> tuple[Dataset, dict[str, list[list[int]]]]:
        """The rows of which the tokenizer makes something, and the tokens of their columns.

        Raises UserError where there is none.
        """
        texts = {name: rows[name][:] for name in rows.column_names}
        if "completion" in texts:
            _, space = self._separator()
            texts["completion"] = [space + text for text in texts["completion"]]
        tokens = {name: self._tokens(column) for name, column in texts.items()}
        good = [row for row in range(len(rows)) if all(column[row] for column in tokens.values())]
        if not good:
            raise no_tokens(self.config.model.checkpoint, role, rows["text"][0])
        if len(good) == len(rows):
            return rows, tokens
        notes.append(
            f"{role}: {len(rows) - len(good):,} rows of which the tokenizer makes no token were "
            "left out"
        )
        return rows.select(good), {n: [column[row] for row in good] for n, column in tokens.items()}

    def _blocks(
        self, rows: Dataset, tokens: Mapping[str, list[list[int]]], role: str, notes: list[str]
    ) -> TokenSamples:
        samples = pack(
            tokens["text"],
            end=self.end,
            before=self.before,
            max_length=self.max_length,
            padding=self.padding,
            limit=limit_of(role, self.config.data),
        )
        of = "one text" if len(rows) == 1 else f"{len(rows):,} texts"
        notes.append(
            f"{role}: {len(samples):,} blocks of {self.max_length} tokens from {of}, "
            f"{tokens_to_predict(samples):,} tokens to predict"
        )
        return samples

    def _completions(
        self, rows: Dataset, tokens: Mapping[str, list[list[int]]], role: str, notes: list[str]
    ) -> TokenSamples:
        """Prompt, separator, completion and end token; what is too long is cut.

        Of a completion its end, then of a prompt its end, before the separator.
        """
        (separator,), _ = self._separator()
        room = self.max_length - len(separator) - len(self.before)
        if room < 2:
            raise UserError(
                f"data.separator={self.config.data.separator!r} takes {len(separator)} of the "
                f"data.max_length={self.max_length} tokens: nothing is left for the texts"
            )
        prompts = tokens["text"]
        if role == "test":
            longest, count = self._longest_to_write(separator), self.config.generation.max_samples
            starts = [[*self.before, *prompt[:longest], *separator] for prompt in prompts[:count]]
            self.to_write = tuple(zip(starts, rows["completion"][:count], strict=True))
        completions = [[*completion, self.end] for completion in tokens["completion"]]
        cut = [completion[: room - 1] for completion in completions]
        shortened = [
            prompt[: room - len(completion)]
            for prompt, completion in zip(prompts, cut, strict=True)
        ]
        for kind, before, after in (
            ("completions", completions, cut),
            ("prompts", prompts, shortened),
        ):
            if count := sum(len(a) > len(b) for a, b in zip(before, after, strict=True)):
                notes.append(f"{role}: {count:,} of {len(rows):,} {kind} were cut to fit")
        whole = [[*self.before, *prompt, *separator] for prompt in shortened]
        return complete(whole, cut, self.padding)

    def _longest_to_write(self, separator: list[int]) -> int:
        """How many tokens of a prompt are read where its completion is to be written.

        The same for every completion, as that is not known, and with room for a whole one.
        """
        new, around = self.config.generation.max_new_tokens, len(self.before) + len(separator)
        longest = self.max_length - around
        if self.positions is None:
            return longest
        left = self.positions - new - around
        if left < 1:
            raise UserError(
                f"generation.max_new_tokens={new} and data.separator="
                f"{self.config.data.separator!r} leave nothing of the {self.positions} tokens that "
                "the model reads to a prompt: write fewer"
            )
        return min(longest, left)

    def _separator(self) -> tuple[list[list[int]], str]:
        """Its tokens, and its last spaces: byte-level tokenizers join these to the word behind."""
        text = self.config.data.separator
        stripped = text.rstrip(" ")
        return self._tokens([stripped]), text[len(stripped) :]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # Whole books are meant: no warning that they are longer than the model's positions.
        found: list[list[int]] = self.processor(
            list(texts), add_special_tokens=False, verbose=False
        )["input_ids"]
        return found

    @property
    def padding(self) -> Padding:
        """On the right, where no position that is predicted can see it."""
        multiple_of = 8 if torch.cuda.is_available() else 1
        return Padding({"input_ids": self.end, "labels": IGNORED}, multiple_of=multiple_of)

    def features(self, rows: Dataset, title: str, *, keep: bool) -> Samples:
        """Prompts to be continued: ``input_ids`` and ``attention_mask``, padded on the left."""
        separator: list[int] = []
        if self.config.data.completion_column is not None:
            (separator,), _ = self._separator()
        prompts = [[*self.before, *p, *separator] for p in self._tokens(rows["text"][:])]
        if not all(prompts):
            text = rows["text"][prompts.index([])]
            raise UserError(f"{title}: of {text!r} the tokenizer makes no token to go on from")
        longest = max(map(len, prompts))
        if self.positions is not None and longest >= self.positions:
            raise UserError(
                f"{title}: a text of {longest:,} tokens leaves nothing to write: the model reads "
                f"at most {self.positions:,}; give a shorter one"
            )
        lengths = np.array([len(prompt) for prompt in prompts])
        tokens = np.array([token for prompt in prompts for token in prompt])
        features = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        padding = Padding({"input_ids": self.end, "attention_mask": 0}, side="left")
        return TokenSamples(features, lengths, None, padding)

    def build_model(self, data: TaskData) -> BuiltModel:
        config = loading.load_config(self.config.model)
        if self.config.strategy.name == "scratch":
            built = BuiltModel(*loading.build_model(config, self.model_class))
        else:
            built = BuiltModel.of(adapted.load_model(self.config.model, config, self.model_class))
        model = built.model
        # transformers reads it from the class's name, and warns where it is not (GPT2LMHeadModel).
        cast(Any, model).loss_type = "ForCausalLM"
        check_vocabulary(model, len(self.processor), self.config.model.checkpoint)
        self._check_causal(model)
        return built

    def _check_causal(self, model: nn.Module) -> None:
        """Raise UserError for a network that sees the tokens it is to predict, such as BERT."""
        tokens = torch.full((2, 4), self.end)
        tokens[1, -1] = (self.end + 1) % len(self.processor)
        model.eval()
        with torch.no_grad():
            one, other = model(input_ids=tokens).logits[:, :-1]
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4):
            raise UserError(
                f"checkpoint {self.config.model.checkpoint!r} ({type(model).__name__}) reads texts "
                "in both directions: it sees the token that it is to predict. Choose a causal one, "
                "such as gpt2"
            )

    def build_on_meta(self, *, num_labels: int) -> nn.Module:
        return loading.build_on_meta(loading.load_config(self.config.model), self.model_class)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Every feature: (batch, longest), int64."""
        padding = self.padding
        if "labels" not in samples[0]:
            padding = Padding({"input_ids": self.end, "attention_mask": 0}, side="left")
        together = TokenSamples.of_samples(samples, padding)
        return together.read_batch(range(len(samples)), torch.device("cpu"))

    def check_batch(self, test: Samples) -> dict[str, Tensor]:
        """The start of one text."""
        start = {name: values[:CHECK_TOKENS] for name, values in test[0].items()}
        return self.collate([start])

    def sample_lengths(self, split: Samples) -> list[int]:
        """Tokens."""
        return cast(TokenSamples, split).lengths()

    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """The number of predicted tokens."""
        return predicted_tokens(batch)

    def predictions(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """(batch, 3): see ``token_scores``; no logits are kept."""
        return token_scores(outputs.logits, batch["labels"])

    def compute_metrics(
        self, predictions: npt.NDArray[Any], references: npt.NDArray[np.integer[Any]]
    ) -> dict[str, Any]:
        """Perplexity, token accuracy and bits per byte of the predicted tokens of a split."""
        sizes = token_bytes(self.processor)
        predicted = references[:, 1:][references[:, 1:] != IGNORED]
        return language_metrics(predictions, None if sizes is None else int(sizes[predicted].sum()))

    def further_test_metrics(
        self, model: nn.Module, test: Samples, accelerator: Accelerator
    ) -> dict[str, Any]:
        """ROUGE and BLEU of what the model writes greedily for the first prompts of the test split.

        Nothing for plain texts.
        """
        if not self.to_write:
            return {}
        model.eval()
        rank, processes = accelerator.process_index, accelerator.num_processes
        own = [self._written(model, part) for part in _parts(self.to_write)[rank::processes]]
        every = [pair for part in (gather_object(own) if processes > 1 else own) for pair in part]
        scores = generation_scores(*zip(*every, strict=True))
        return scores | {"generated_samples": len(every)}

    def _written(
        self, model: nn.Module, part: Sequence[tuple[list[int], str]]
    ) -> list[tuple[str, str]]:
        """What the model writes for each prompt, and the completion that was to be written."""
        prompts = [{"input_ids": p, "attention_mask": [1] * len(p)} for p, _ in part]
        sampling = Sampling(self.config.generation.max_new_tokens)
        written = self._continue(model, self.collate(prompts), sampling, count=1)
        return list(zip(written, (completion for _, completion in part), strict=True))

    def _continue(
        self, model: nn.Module, batch: Mapping[str, Tensor], sampling: Sampling, count: int
    ) -> list[str]:
        device = next(model.parameters()).device
        tokens, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        if self.together is None and len(tokens) > 1:
            self.together = continues_together(model, len(self.processor), end=self.end)
        with torch.no_grad():
            written = generate(
                model,
                tokens,
                mask,
                sampling,
                count=count,
                end=self.end,
                positions=self.positions,
                together=bool(self.together),
            )
        return self._decode(written)

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        texts: list[str] = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def save_processor(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)

    def answer(self, model: nn.Module, batch: Mapping[str, Tensor], count: int) -> list[Answer]:
        """What ``sampling`` makes of each prompt: one greedy text, or ``count`` by chance.

        A continuation begins with the space that belongs there, a completion with its first word.

        Raises UserError for several greedy ones.
        """
        if count > 1 and not self.sampling.random:
            raise UserError(
                f"--top={count}: greedy writing gives one text; add --temperature or --top-p"
            )
        texts = self._continue(model, batch, self.sampling, count)
        if self.config.data.completion_column is not None:
            texts = [text.strip(" ") for text in texts]
        rows = [texts[i : i + count] for i in range(0, len(texts), count)]
        return [tuple(Candidate(text) for text in row) for row in rows]


def _joined(columns: Iterable[list[list[int]]]) -> Integers:
    """All tokens of all texts."""
    every = chain.from_iterable(chain.from_iterable(columns))
    return np.fromiter(every, dtype=np.int64)


def _parts(to_write: Sequence[tuple[list[int], str]]) -> list[list[tuple[list[int], str]]]:
    """Batches of prompts of like length."""
    ordered = sorted(to_write, key=lambda pair: len(pair[0]))
    return [ordered[i : i + GENERATION_BATCH] for i in range(0, len(ordered), GENERATION_BATCH)]
