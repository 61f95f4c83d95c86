"""Speech recognition: one clip to its transcript, with CTC."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from hfbench.ctc import beam_search, best_path
from hfbench.data import durations
from hfbench.data.audio import audio_seconds
from hfbench.data.bars import bars_for
from hfbench.data.durations import ClipLength
from hfbench.data.media import DecodedSamples, Unreadable, encoded
from hfbench.data.speech import load_speech
from hfbench.data.splits import Splits
from hfbench.data.transcripts import (
    DELIMITER,
    PAD,
    UNKNOWN,
    UNREADABLE,
    Alphabet,
    make_vocabulary,
    normalise,
)
from hfbench.data.unreadable_texts import MUCH
from hfbench.error_rates import error_rates
from hfbench.errors import UnreadableError, UserError
from hfbench.models import adapted, loading
from hfbench.models.label_heads import HeadChoice, settle_head
from hfbench.tasks.audio import AudioTask
from hfbench.tasks.base import Answer, BuiltModel, Candidate, Samples, TaskData
from hfbench.tasks.reading import bad_rows_of, facts_of, read_splits

FILLING = -100  # behind the shorter transcripts of a split or batch, as transformers' losses want
SHOWN_CHARACTERS = 10


class SpeechRecognition(AudioTask):
    """Wav2Vec2, HuBERT and their relatives with a linear layer over the vocabulary (CTC).

    The vocabulary is the checkpoint's where it has a CTC tokenizer, and is made of the training
    transcripts where it has none. Clips are padded as :class:`AudioTask` says, and none is cropped:
    a longer one than ``max_seconds`` is an error, as its transcript would not fit any more.

    The loss of a sample is divided by its transcript's tokens (``ctc_loss_reduction="mean"``).
    A clip with fewer frames than its transcript needs has an infinite loss. Every clip is checked
    for that beforehand, so ``ctc_zero_infinity`` stays off: it would hide that nothing is learnt.
    """

    name = "speech_recognition"
    primary_metric = "wer"
    greater_is_better = False
    answer_name = "transcript"
    model_class = AutoModelForCTC

    def load_extractor(self) -> Any:
        extractor = super().load_extractor()
        if self.network is None:
            raise UserError(
                f"checkpoint {self.config.model.checkpoint!r} reads {self.feature}: speech "
                "recognition is for networks that read waveforms and are trained with CTC, such as "
                "Wav2Vec2, HuBERT and WavLM"
            )
        return extractor

    def load_processor(self) -> Any:
        extractor = self.load_extractor()
        tokenizer = loading.load_ctc_tokenizer(self.config.model)
        if tokenizer is None:
            raise UserError(
                f"checkpoint {self.config.model.checkpoint!r} has no vocabulary for transcripts "
                "(vocab.json with a Wav2Vec2CTCTokenizer): it was not trained to write any"
            )
        return self._processor(extractor, tokenizer)

    def _processor(self, extractor: Any, tokenizer: Any) -> Any:
        self.alphabet = Alphabet.of(tokenizer, self._outputs(tokenizer))
        return Wav2Vec2Processor(extractor, tokenizer)

    def prepare_data(self) -> TaskData:
        loading.require_task(self.config.model, self.name)
        extractor = self.load_extractor()  # first: a wrong checkpoint fails at once
        tokenizer = loading.load_ctc_tokenizer(self.config.model)
        bad = bad_rows_of(self.config)
        splits = load_speech(self.config.data, bad)
        origin = "the checkpoint's"
        self.own_vocabulary = tokenizer is not None
        if tokenizer is None:
            tokenizer = _new_tokenizer(splits.train["text"][:])
            origin = "made of the training transcripts"
        self.processor = self._processor(extractor, tokenizer)
        splits.summary["notes"].extend(
            [
                f"vocabulary: {tokenizer.vocab_size} tokens, {origin}",
                f"transcripts: {self.alphabet.rules}",
                *self._unknown({role: getattr(splits, role) for role in splits.origins}),
            ]
        )

        def read(rows: Dataset, role: str, unreadable: Unreadable) -> Samples:
            return self.features(rows, role, keep=True, unreadable=unreadable)

        self.fit_inputs(splits)
        found = read_splits(splits, "audio", read, bad)
        self.describe_inputs(facts_of(found), found.summary)
        return found

    def clip_length(self, splits: Splits) -> ClipLength:
        """By the clips of all splits, as none is cropped."""
        roles = [getattr(splits, role) for role in splits.origins]
        found = chain.from_iterable(map(durations.durations_of, roles))
        return durations.of_all_clips(found, self.seconds_read)

    def _unknown(self, splits: Mapping[str, Dataset]) -> list[str]:
        """What of the transcripts the vocabulary lacks."""
        notes = []
        for name, rows in splits.items():
            texts = [self.alphabet.normalise(text) for text in rows["text"][:]]
            counts: Counter[str] = self.alphabet.unknown_characters(texts)
            if counts:
                share = counts.total() / sum(map(len, texts))
                shown = ", ".join(f"{c} {n:,}" for c, n in counts.most_common(SHOWN_CHARACTERS))
                fate = "are left out" if self.alphabet.unknown is None else "count as errors"
                notes.append(
                    f"{'warning: ' if share > MUCH else ''}{counts.total():,} characters of {name} "
                    f"({100 * share:.3g} %) are not in the vocabulary and {fate}: {shown}"
                    f"{', ...' if len(counts) > SHOWN_CHARACTERS else ''}"
                )
        return notes

    def features(
        self, rows: Dataset, title: str, *, keep: bool, unreadable: Unreadable | None = None
    ) -> Samples:
        """Waveforms: (samples,), float32; of ``text`` the tokens, filled up to one length.

        A clip longer than ``max_seconds``, one too short for its transcript and a transcript
        of which nothing is left cannot be read either: an error, or put into ``unreadable``.
        """
        texts = rows["text"][:] if "text" in rows.column_names else None
        usable: list[int] = []
        lengths: list[int] = []
        labels: list[list[int]] = []
        for row, value in enumerate(rows["audio"]):
            try:
                source, name = encoded(value, "audio", f"{title} row {row}")
                lengths.append(self._samples_of(source, name))
                if texts is not None:
                    labels.append(self._tokens(texts[row], lengths[-1], name))
            except UnreadableError as error:
                if unreadable is None:
                    raise
                unreadable[row] = error.reason
                del lengths[len(usable) :]
                continue
            usable.append(row)
        rows = rows.select(usable)
        if texts is not None:
            with bars_for(len(rows)):
                rows = rows.remove_columns("text").add_column("labels", _filled(labels))
        broken: Unreadable | None = None if unreadable is None else {}
        samples = Utterances(
            rows,
            "audio",
            title,
            feature=self.feature,
            decode=self._extract,
            keep=keep,
            unreadable=broken,
            settings=self.decoding,
            audio_lengths=lengths,
        )
        if unreadable is not None and broken is not None:
            unreadable.update({usable[index]: reason for index, reason in broken.items()})
        return samples

    def _samples_of(self, source: str | bytes, name: str) -> int:
        """How long a clip is at the checkpoint's rate, by its header."""
        seconds, longest = audio_seconds(source, name), self.max_seconds
        if seconds > longest:
            raise UnreadableError(
                name,
                f"a recording of {seconds:.2f} s, longer than data.max_seconds={longest:g}, and a "
                "transcript belongs to the whole of it: cut it, or train with a larger "
                "data.max_seconds",
            )
        return round(seconds * int(self.extractor.sampling_rate))

    def _tokens(self, text: str, samples: int, name: str) -> list[int]:
        """Of a transcript that fits into the clip's samples."""
        tokens = self.alphabet.encode(self.alphabet.normalise(text))
        if not self.alphabet.decode(tokens, unknown=UNREADABLE):
            raise UnreadableError(name, f"without a transcript: of {text!r} nothing is left")
        frames, needed = self.frames(samples), frames_needed(tokens)
        if frames < needed:
            raise UnreadableError(
                name,
                f"too short for its transcript: {frames} frames of this model, and {text!r} needs "
                f"{needed} (one a character, one more between two equal ones)",
            )
        return tokens

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """``labels``: (batch, longest transcript), int64, FILLING behind the shorter ones."""
        batch = super().collate(samples)
        if "labels" in batch:
            batch["labels"] = batch["labels"][:, (batch["labels"] != FILLING).any(dim=0)]
        return batch

    def build_model(self, data: TaskData) -> BuiltModel:
        config = loading.load_config(
            self.config.model,
            vocab_size=self._outputs(self.processor.tokenizer),
            pad_token_id=self.alphabet.blank,
            ctc_loss_reduction="mean",
            ctc_zero_infinity=False,
            **self.config_overrides,
        )
        self.complete_config(config)
        if self.config.strategy.name == "scratch":
            return BuiltModel(*loading.build_model(config, self.model_class))
        loaded = adapted.load_model(self.config.model, config, self.model_class)
        return BuiltModel.of(
            settle_head(
                loaded,
                self._head(),
                self.model_class,
                checkpoint=self.config.model,
                outputs="vocab_size",
            )
        )

    def _head(self) -> HeadChoice:
        """The checkpoint's where it has a vocabulary: its outputs are the tokens of that.

        Raises UserError for ``model.head=reuse`` without one.
        """
        chosen = self.config.model.head
        if self.own_vocabulary and chosen != "new":
            outputs = range(self._outputs(self.processor.tokenizer))
            return HeadChoice(tuple(outputs), required=chosen == "reuse")
        if chosen == "reuse":
            raise UserError(
                f"model.head=reuse: checkpoint {self.config.model.checkpoint!r} has no vocabulary "
                "(vocab.json) that says what the outputs of its head are. Leave model.head out for "
                "a new one"
            )
        return HeadChoice(None)

    def _outputs(self, tokenizer: Any) -> int:
        """Of the head: one for each token.

        A checkpoint's own head is kept also where it has none for tokens that its tokenizer adds
        to the vocabulary, as transformers does with the start and the end of a sentence.
        """
        own, least = loading.load_config(self.config.model).vocab_size, int(tokenizer.vocab_size)
        return int(own) if least <= own <= len(tokenizer) else least

    def build_on_meta(self, *, num_labels: int) -> nn.Module:
        """``num_labels``: tokens of the vocabulary."""
        config = loading.load_config(
            self.config.model, vocab_size=num_labels, **self.config_overrides
        )
        return loading.build_on_meta(config, self.model_class)

    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """The number of samples: the loss is a mean over them."""
        return len(batch["labels"])

    def predictions(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Decoded tokens: (batch, longest answer), int64, FILLING behind the shorter ones."""
        decoded = [tokens for (tokens, _), *_ in self._decode(outputs.logits, batch, 1)]
        found = torch.full((len(decoded), max(map(len, decoded))), FILLING)
        for row, tokens in enumerate(decoded):
            found[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        return found

    def comparable(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits, (batch, frames, vocabulary), with zeros where a clip has ended."""
        logits: Tensor = outputs.logits.detach().float().clone()
        for row, frames in enumerate(self._frames(logits, batch)):
            logits[row, frames:] = 0
        return logits

    def _frames(self, logits: Tensor, batch: Mapping[str, Tensor]) -> list[int]:
        """How many frames of each sample are not padding that the network masks."""
        if "attention_mask" not in batch:
            return [logits.shape[1]] * len(logits)
        return [self.frames(n) for n in batch["attention_mask"].sum(dim=-1).tolist()]

    def _decode(
        self, logits: Tensor, batch: Mapping[str, Tensor], count: int
    ) -> list[list[tuple[tuple[int, ...], float | None]]]:
        """At most ``count`` answers for each sample: tokens, and a probability with beams."""
        log_probabilities = logits.float().log_softmax(dim=-1).cpu().numpy()
        frames = self._frames(logits, batch)
        beams, blank = max(self.config.decoding.beams, count), self.alphabet.blank
        decoded: list[list[tuple[tuple[int, ...], float | None]]] = []
        for sample, length in zip(log_probabilities, frames, strict=True):
            if beams == 1:
                decoded.append([(best_path(sample[:length], blank=blank), None)])
                continue
            best = beam_search(sample[:length], blank=blank, beams=beams)[:count]
            decoded.append([(tokens, float(np.exp(value))) for tokens, value in best])
        return decoded

    def compute_metrics(
        self, predictions: npt.NDArray[Any], references: npt.NDArray[np.integer[Any]]
    ) -> dict[str, Any]:
        """Error rates of token numbers (samples, ...), both with FILLING behind."""
        return error_rates(
            self._texts(predictions, unknown=""), self._texts(references, unknown=UNREADABLE)
        )

    def _texts(self, tokens: npt.NDArray[Any], *, unknown: str) -> list[str]:
        return [
            self.alphabet.decode(row[row != FILLING].tolist(), unknown=unknown) for row in tokens
        ]

    def save_processor(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)

    def answer(self, model: nn.Module, batch: Mapping[str, Tensor], count: int) -> list[Answer]:
        """Transcripts; their probabilities where several prefixes were searched."""
        return [
            tuple(Candidate(self.alphabet.decode(tokens), value) for tokens, value in candidates)
            for candidates in self._decode(model(**batch).logits, batch, count)
        ]

    def fit_to(self, config: Any) -> None:
        tokenizer = self.processor.tokenizer
        fits = tokenizer.vocab_size <= config.vocab_size <= len(tokenizer)
        if not fits or config.pad_token_id != self.alphabet.blank:
            raise UserError(
                f"the model has {config.vocab_size} outputs, blank {config.pad_token_id}, and its "
                f"tokenizer {len(tokenizer)} tokens, blank {self.alphabet.blank}: they do not fit"
            )


class Utterances(DecodedSamples):
    """Clips whose lengths are known by their headers, also where not all of them stay decoded."""

    def __init__(self, *args: Any, audio_lengths: list[int], **options: Any) -> None:
        """``audio_lengths``: audio samples of every clip, also of those that cannot be decoded."""
        super().__init__(*args, **options)
        broken = options["unreadable"] or ()
        self.audio_lengths = [n for index, n in enumerate(audio_lengths) if index not in broken]

    def lengths(self) -> list[int]:
        return self.audio_lengths


def _filled(labels: Sequence[Sequence[int]]) -> list[list[int]]:
    """All of one length, FILLING behind the shorter ones."""
    longest = max(map(len, labels), default=0)
    return [[*tokens, *[FILLING] * (longest - len(tokens))] for tokens in labels]


def frames_needed(tokens: Sequence[int]) -> int:
    """The fewest frames that a CTC path needs: one a token, and a blank between equal ones."""
    return len(tokens) + sum(one == other for one, other in pairwise(tokens))


def _new_tokenizer(transcripts: Sequence[str]) -> Any:
    """Of the characters of the transcripts, in lower case, with the apostrophe."""
    vocabulary = make_vocabulary([normalise(t, case="lower", kept="'") for t in transcripts])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file),
            bos_token=None,
            eos_token=None,
            unk_token=UNKNOWN,
            pad_token=PAD,
            word_delimiter_token=DELIMITER,
        )
