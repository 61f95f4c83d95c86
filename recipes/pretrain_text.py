"""Pre-trains the bundled bert-tiny: masked language modelling (Devlin et al. 2019) from scratch.

    python recipes/make_pretraining_text.py corpus NAME=HTML_FOLDER ...
    python recipes/pretrain_text.py --corpus corpus --data-notes recipes/data_notes/text.md

The corpus is a folder of .txt files, UTF-8, one paragraph a line.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pretraining import argument_parser, pretrain, write_card
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertTokenizer
from transformers.modeling_outputs import MaskedLMOutput

from hfbench.training.batching import Batch, Sample
from hfbench.training.evaluation import predict_split
from hfbench.training.objective import Objective

VOCABULARY_SIZE = 6000
BLOCK_TOKENS = 128
MASKED_SHARE = 0.15
VALIDATION_SHARE = 0.02  # of the paragraphs
WINDOW_TOKENS = 5  # on either side, in which tokens count as neighbours
IGNORED = -100  # label of a position that is not to be predicted


class MaskedPositionsOnly(nn.Module):
    """BertForMaskedLM that computes the vocabulary's logits at the masked positions only.

    The same loss as BertForMaskedLM's at half the cost.
    """

    def __init__(self, model: BertForMaskedLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, labels: Tensor) -> MaskedLMOutput:
        """input_ids, labels: (batch, tokens). logits: (masked positions, vocabulary)."""
        hidden = self.model.bert(input_ids).last_hidden_state
        masked = labels != IGNORED
        logits = self.model.cls(hidden[masked]).float()
        loss = nn.functional.cross_entropy(logits, labels[masked])
        return MaskedLMOutput(loss=loss, logits=logits)


def read_paragraphs(corpus: Path) -> list[str]:
    files = sorted(corpus.glob("*.txt"))
    if not files:
        raise SystemExit(f"no .txt files in {corpus}: make them with make_pretraining_text.py")
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def train_tokenizer(paragraphs: list[str]) -> BertTokenizer:
    """A lower-case WordPiece tokenizer."""
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(paragraphs, vocab_size=VOCABULARY_SIZE, show_progress=False)
    return BertTokenizer(vocab=trainer.get_vocab(), model_max_length=BLOCK_TOKENS)


def pack(paragraphs: list[str], tokenizer: BertTokenizer) -> list[Tensor]:
    """Token blocks (BLOCK_TOKENS,): [CLS], then paragraphs one after the other, each with [SEP]."""
    stream: list[int] = []
    for ids in tokenizer(paragraphs, add_special_tokens=False)["input_ids"]:
        stream += [*ids, tokenizer.sep_token_id]
    size = BLOCK_TOKENS - 1
    starts = range(0, len(stream) - size + 1, size)
    return [torch.tensor([tokenizer.cls_token_id, *stream[i : i + size]]) for i in starts]


def mask(ids: Tensor, tokenizer: BertTokenizer, generator: torch.Generator | None = None) -> Batch:
    """Hide MASKED_SHARE of the tokens: 80 % as [MASK], 10 % as a random token, 10 % as they are.

    ids: (batch, tokens). Devlin et al. 2019, section 3.1. None: the global random generator.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape, generator=generator) < MASKED_SHARE) & ~special
    way = torch.rand(ids.shape, generator=generator)
    inputs = ids.masked_fill(chosen & (way < 0.8), tokenizer.mask_token_id)
    randomised = chosen & (way >= 0.8) & (way < 0.9)
    random_ids = torch.randint(len(tokenizer), ids.shape, generator=generator)
    inputs = torch.where(randomised, random_ids, inputs)
    return {"input_ids": inputs, "labels": ids.masked_fill(~chosen, IGNORED)}


def correct_of_each(outputs: Any, batch: Batch) -> Tensor:
    """(batch,): how many masked tokens of each block were predicted."""
    labels = batch["labels"]
    correct = torch.zeros(labels.shape, dtype=torch.long)
    masked = labels != IGNORED
    correct[masked] = (outputs.logits.argmax(-1) == labels[masked]).long()
    return correct.sum(1)


def neighbour_embeddings(ids: Tensor, *, vocabulary: int, width: int) -> Tensor:
    """(vocabulary, width): tokens with like neighbours have like rows, each of length 1.

    The truncated singular value decomposition of the positive pointwise mutual information
    between a token and its neighbours (Levy, Goldberg and Dagan 2015, sections 2 and 3).
    ids: (tokens,), the corpus.
    """
    stream, counts = ids.numpy(), np.zeros(vocabulary**2, dtype=np.float32)
    for distance in range(1, WINDOW_TOKENS + 1):
        pairs = stream[:-distance] * vocabulary + stream[distance:]
        counts += np.bincount(pairs, minlength=vocabulary**2)
    table = torch.from_numpy(counts.reshape(vocabulary, vocabulary))
    table += table.T.clone()
    context = table.sum(0) ** 0.75
    expected = table.sum(1, keepdim=True) * context / context.sum()
    information = torch.where(table > 0, torch.log(table / expected), 0.0).clamp(min=0)
    left, strength, _ = torch.svd_lowrank(information, q=width + 32, niter=4)
    rows = left[:, :width] * strength[:width].sqrt()
    frequency = torch.bincount(ids, minlength=vocabulary) / len(ids)
    return nn.functional.normalize(rows - frequency @ rows, dim=1)


@torch.no_grad()
def start_from_neighbours(bert: BertForMaskedLM, ids: Tensor, tokenizer: BertTokenizer) -> None:
    """Initial weights that predict a masked token from its neighbours, before any training.

    From random weights, BERT spends thousands of steps on the frequency of each token before it
    looks at the context at all. Here the frequencies are the bias of the output, the embeddings
    come from `neighbour_embeddings`, and attention starts as a mean over near positions: positions
    are sinusoids (Vaswani et al. 2017), keys equal queries, and values and outputs contain the
    identity (mimetic initialisation, Trockman and Kolter 2023).
    """
    config, embeddings = bert.config, bert.bert.embeddings
    width, scale = config.hidden_size, config.initializer_range
    rows = neighbour_embeddings(ids, vocabulary=config.vocab_size, width=width)
    rows[tokenizer.mask_token_id] = 0
    embeddings.word_embeddings.weight.copy_(rows * scale * width**0.5)
    counts = torch.bincount(ids, minlength=config.vocab_size) + 0.5
    bert.cls.predictions.bias.copy_((counts / counts.sum()).log())
    bert.cls.predictions.transform.dense.weight.mul_(0.5).add_(torch.eye(width))
    position = torch.arange(config.max_position_embeddings)[:, None]
    angle = position * 10_000 ** (-torch.arange(0, width, 2) / width)
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    embeddings.position_embeddings.weight.copy_(waves * 0.6 * 2**0.5 * scale)
    for layer in bert.bert.encoder.layer:
        attention = layer.attention.self
        attention.query.weight.mul_(3)
        attention.key.weight.copy_(attention.query.weight)
        for weight in (attention.value.weight, layer.attention.output.dense.weight):
            weight.mul_(0.5).add_(0.5 * torch.eye(width))
        layer.output.dense.weight.mul_(0.2)


def main() -> None:
    parser = argument_parser(
        __doc__,
        output="bert-tiny",
        epochs=2,
        batch_size=16,
        learning_rate=1e-3,
        mixed_precision="bf16",
    )
    parser.add_argument("--corpus", type=Path, required=True)
    args = parser.parse_args()
    set_seed(args.seed)
    accelerator = Accelerator(cpu=True, mixed_precision=args.mixed_precision)

    paragraphs = read_paragraphs(args.corpus)
    random.Random(args.seed).shuffle(paragraphs)
    held_out = round(len(paragraphs) * VALIDATION_SHARE)
    tokenizer = train_tokenizer(paragraphs[held_out:])
    blocks = [{"ids": ids} for ids in pack(paragraphs[held_out:], tokenizer)]
    ids = torch.stack(pack(paragraphs[:held_out], tokenizer))
    masked = mask(ids, tokenizer, torch.Generator().manual_seed(args.seed))
    validation = [{key: rows[i] for key, rows in masked.items()} for i in range(len(ids))]
    print(f"{len(paragraphs):,} paragraphs, {len(blocks):,} + {len(ids):,} blocks of 128 tokens")

    # No dropout in pre-training: every block is seen only a few times.
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=160,
        initializer_range=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    bert = BertForMaskedLM(config)
    stream = torch.cat([block["ids"][1:] for block in blocks])
    start_from_neighbours(bert, stream, tokenizer)

    def collate(samples: list[Sample]) -> Batch:
        if "labels" in samples[0]:
            return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
        return mask(torch.stack([s["ids"] for s in samples]), tokenizer)

    def masked_tokens(batch: Batch) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def evaluate(model: nn.Module) -> dict[str, Any]:
        found = predict_split(
            model,
            validation,
            collate=collate,
            loss_units=masked_tokens,
            keep=correct_of_each,
            batch_size=args.batch_size,
            accelerator=accelerator,
        )
        accuracy = found.predictions.sum() / (found.references != IGNORED).sum()
        return {"loss": found.loss, "masked-token accuracy": float(accuracy)}

    objective = Objective(collate=collate, loss_units=masked_tokens, evaluate=evaluate)
    result = pretrain(MaskedPositionsOnly(bert), blocks, objective, accelerator, args)

    defaults = BertConfig()
    config.hidden_dropout_prob = defaults.hidden_dropout_prob  # for fine-tuning
    config.attention_probs_dropout_prob = defaults.attention_probs_dropout_prob
    bert.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    write_card(
        args,
        result,
        metadata="language: en\npipeline_tag: fill-mask\nlibrary_name: transformers\n",
        description="A BERT (6 blocks of width 128, 4 heads, lower-case WordPiece vocabulary of "
        f"{len(tokenizer):,}) pre-trained with masked language modelling on English technical "
        f"documentation, at most {BLOCK_TOKENS} tokens at a time. It did not start from random "
        "weights: embeddings and output bias came from the corpus's token and neighbour counts, "
        "positions were sinusoids and attention a mean over near positions "
        "(`start_from_neighbours` in the recipe).",
        scores=f"Measured on {len(validation):,} blocks of {BLOCK_TOKENS} tokens, made from "
        f"{VALIDATION_SHARE:.0%} of the paragraphs, which were held out; the same masks after "
        "every epoch. Loss: nats a masked token. The epoch with the lowest loss was kept.\n",
        parameters=bert.num_parameters(),
    )


if __name__ == "__main__":
    main()
