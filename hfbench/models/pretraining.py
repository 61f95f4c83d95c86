"""What the checkpoints of the catalogue learnt before they are fine-tuned.

Facts from their papers and model cards. Amounts are those of the corpus, not of its repetitions;
None where the publishers name none. GB of BERT's, RoBERTa's and OpenWebText's corpora are those of
Liu et al. 2019 (RoBERTa), section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hfbench.models.languages import COMMON_CRAWL_100, WIKIPEDIA_104, XLSR_53

TaskName = Literal[
    "text_classification",
    "image_classification",
    "audio_classification",
    "speech_recognition",
    "causal_lm",
]


@dataclass(frozen=True)
class Pretraining:
    """What one checkpoint was trained on."""

    tasks: tuple[TaskName, ...]  # what such a network is fine-tuned for, the most usual first
    corpora: tuple[str, ...]
    amount: float | None  # of the corpora together, in ``unit``
    unit: Literal["GB of text", "million images", "hours of speech", "hours of sound"]
    objective: str
    source: str
    every_position: bool = True  # the loss is of all of a sample, not of its masked positions only
    languages: tuple[str, ...] = ()
    further: str | None = None  # what it was fine-tuned on since, with labels
    licence: str | None = None  # SPDX, as in its model card

    @property
    def multilingual(self) -> bool:
        """Whether several languages share the network."""
        return len(self.languages) > 1

    @property
    def text(self) -> str:
        """All of it in words, which ``--pretrained-on`` searches."""
        kinds = ("multilingual",) if self.multilingual else ()
        further = () if self.further is None else (self.further,)
        words = (*self.corpora, self.unit, self.objective, *self.languages, *kinds, *further)
        return ", ".join(words)


_ENGLISH = ("English",)
_BOOKS_AND_WIKIPEDIA = ("BooksCorpus", "English Wikipedia")
_BERT = Pretraining(
    tasks=("text_classification",),
    corpora=_BOOKS_AND_WIKIPEDIA,
    amount=16,
    unit="GB of text",
    objective="masked language modelling, next-sentence prediction",
    every_position=False,
    languages=_ENGLISH,
    licence="Apache-2.0",
    source="Devlin et al. 2019, arXiv:1810.04805",
)
_MULTILINGUAL_BERT = replace(
    _BERT,
    corpora=("Wikipedia in 104 languages",),
    amount=None,
    languages=WIKIPEDIA_104,
    source="github.com/google-research/bert, multilingual.md",
)
_CHINESE_BERT = replace(
    _MULTILINGUAL_BERT,
    corpora=("Chinese Wikipedia, simplified and traditional",),
    languages=("Chinese",),
)
_ROBERTA = replace(
    _BERT,
    corpora=(*_BOOKS_AND_WIKIPEDIA, "CC-News", "OpenWebText", "Stories"),
    amount=160,
    objective="masked language modelling",
    licence="MIT",
    source="Liu et al. 2019, arXiv:1907.11692",
)
_XLM_R = replace(
    _ROBERTA,
    corpora=("CommonCrawl (CC-100) in 100 languages",),
    amount=2500,
    languages=COMMON_CRAWL_100,
    source="Conneau et al. 2020, arXiv:1911.02116",
)
_DISTIL_SOURCE = "Sanh et al. 2019, arXiv:1910.01108"
_DISTILBERT = replace(
    _BERT,
    objective="masked language modelling, distilled from bert-base-uncased",
    source=_DISTIL_SOURCE,
)
_DISTIL_MULTILINGUAL = replace(
    _MULTILINGUAL_BERT,
    objective="masked language modelling, distilled from bert-base-multilingual-cased",
    source=_DISTIL_SOURCE,
)
_DISTILROBERTA = replace(
    _BERT,
    corpora=("OpenWebText",),
    amount=38,
    objective="masked language modelling, distilled from roberta-base",
    source=_DISTIL_SOURCE,
)
_DEBERTA_V3 = replace(
    _ROBERTA,
    objective="replaced-token detection",
    every_position=True,
    source="He et al. 2021, arXiv:2111.09543",
)
_ALBERT_V2 = replace(
    _BERT,
    corpora=(*_BOOKS_AND_WIKIPEDIA, "additional data of version 2"),
    amount=None,
    objective="masked language modelling, sentence-order prediction",
    source="Lan et al. 2020, arXiv:1909.11942; github.com/google-research/albert",
)
# The released ones are Small++ and Base++, which read XLNet's data (Yang et al. 2019, section 3.1:
# 13 + 16 + 19 + 110 GB).
_ELECTRA = replace(
    _BERT,
    corpora=(*_BOOKS_AND_WIKIPEDIA, "Giga5", "ClueWeb 2012-B", "CommonCrawl"),
    amount=158,
    objective="replaced-token detection",
    every_position=True,
    source="Clark et al. 2020, arXiv:2003.10555",
)
_GPT2 = Pretraining(
    tasks=("causal_lm", "text_classification"),
    corpora=("WebText",),
    amount=40,
    unit="GB of text",
    objective="next-token prediction",
    languages=_ENGLISH,
    licence="MIT",
    source="Radford et al. 2019",
)
_DISTILGPT2 = replace(
    _GPT2,
    corpora=("OpenWebText",),
    amount=38,
    objective="next-token prediction, distilled from gpt2",
    licence="Apache-2.0",
    source="github.com/huggingface/transformers, distillation",
)
_VIT_21K = Pretraining(
    tasks=("image_classification",),
    corpora=("ImageNet-21k",),
    amount=14,
    unit="million images",
    objective="supervised, 21,843 classes",
    licence="Apache-2.0",
    source="Dosovitskiy et al. 2021, arXiv:2010.11929",
)
_VIT_1K = replace(_VIT_21K, further="ImageNet-1k, 1,000 classes")
_DEIT = replace(
    _VIT_21K,
    corpora=("ImageNet-1k",),
    amount=1.28,
    objective="supervised, 1,000 classes",
    source="Touvron et al. 2021, arXiv:2012.12877",
)
_WAV2VEC2 = Pretraining(
    tasks=("audio_classification", "speech_recognition"),
    corpora=("LibriSpeech",),
    amount=960,
    unit="hours of speech",
    objective="contrastive loss of masked time steps",
    every_position=False,
    languages=_ENGLISH,
    licence="Apache-2.0",
    source="Baevski et al. 2020, arXiv:2006.11477",
)
_WAV2VEC2_960H = replace(_WAV2VEC2, further="transcripts of LibriSpeech-960h (CTC)")
_XLSR = replace(
    _WAV2VEC2,
    corpora=("Multilingual LibriSpeech, CommonVoice and BABEL in 53 languages",),
    amount=56_000,
    languages=XLSR_53,
    source="Conneau et al. 2021, arXiv:2006.13979",
)
_HUBERT = replace(
    _WAV2VEC2,
    objective="prediction of the clusters of masked time steps",
    source="Hsu et al. 2021, arXiv:2106.07447",
)
_HUBERT_LARGE = replace(_HUBERT, corpora=("Libri-Light",), amount=60_000)
_WAVLM_PLUS = replace(
    _HUBERT,
    corpora=("Libri-Light", "GigaSpeech", "VoxPopuli"),
    amount=94_000,
    objective="prediction of the clusters of masked time steps, in mixed and noisy speech",
    licence=None,
    source="Chen et al. 2022, arXiv:2110.13900",
)
_AST = Pretraining(
    tasks=("audio_classification",),
    corpora=("AudioSet",),
    amount=5_800,
    unit="hours of sound",
    objective="supervised, 527 kinds of sounds, starting from a DeiT of ImageNet-1k",
    licence="BSD-3-Clause",
    source="Gong et al. 2021, arXiv:2104.01778",
)

PRETRAINING: Mapping[str, Pretraining] = {
    "google-bert/bert-base-uncased": _BERT,
    "google-bert/bert-base-cased": _BERT,
    "google-bert/bert-large-uncased": _BERT,
    "google-bert/bert-base-multilingual-cased": _MULTILINGUAL_BERT,
    "google-bert/bert-base-chinese": _CHINESE_BERT,
    "distilbert/distilbert-base-uncased": _DISTILBERT,
    "distilbert/distilbert-base-multilingual-cased": _DISTIL_MULTILINGUAL,
    "FacebookAI/roberta-base": _ROBERTA,
    "FacebookAI/roberta-large": _ROBERTA,
    "distilbert/distilroberta-base": _DISTILROBERTA,
    "FacebookAI/xlm-roberta-base": _XLM_R,
    "FacebookAI/xlm-roberta-large": _XLM_R,
    "microsoft/deberta-v3-base": _DEBERTA_V3,
    "microsoft/deberta-v3-small": _DEBERTA_V3,
    "microsoft/deberta-v3-large": _DEBERTA_V3,
    "albert/albert-base-v2": _ALBERT_V2,
    "google/electra-small-discriminator": _ELECTRA,
    "google/electra-base-discriminator": _ELECTRA,
    "google/vit-base-patch16-224": _VIT_1K,
    "google/vit-base-patch16-224-in21k": _VIT_21K,
    "google/vit-large-patch16-224": _VIT_1K,
    "facebook/deit-tiny-patch16-224": _DEIT,
    "facebook/deit-small-patch16-224": _DEIT,
    "facebook/deit-base-patch16-224": _DEIT,
    "facebook/wav2vec2-base": _WAV2VEC2,
    "facebook/wav2vec2-base-960h": _WAV2VEC2_960H,
    "facebook/wav2vec2-large": _WAV2VEC2,
    "facebook/wav2vec2-large-960h": _WAV2VEC2_960H,
    "facebook/wav2vec2-large-xlsr-53": _XLSR,
    "facebook/hubert-base-ls960": _HUBERT,
    "facebook/hubert-large-ll60k": _HUBERT_LARGE,
    "microsoft/wavlm-base-plus": _WAVLM_PLUS,
    "MIT/ast-finetuned-audioset-10-10-0.4593": _AST,
    "openai-community/gpt2": _GPT2,
    "openai-community/gpt2-medium": _GPT2,
    "openai-community/gpt2-large": _GPT2,
    "openai-community/gpt2-xl": _GPT2,
    "distilbert/distilgpt2": _DISTILGPT2,
}
