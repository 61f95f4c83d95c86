"""Pre-trains the bundled gpt-tiny: causal language modelling (Radford et al. 2019) from scratch.

    python recipes/make_pretraining_text.py corpus NAME=HTML_FOLDER ...
    python recipes/pretrain_gpt.py --corpus corpus --data-notes recipes/data_notes/gpt.md

The corpus is a folder of .txt files, UTF-8, one paragraph a line.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pretrain_text import read_paragraphs
from pretraining import argument_parser, pretrain, write_card
from tokenizers.implementations import ByteLevelBPETokenizer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from hfbench.data.packing import pack
from hfbench.data.tokens import Padding, TokenSamples
from hfbench.tasks.language_scores import language_metrics, predicted_tokens, token_scores
from hfbench.training.batching import Batch, Sample
from hfbench.training.evaluation import predict_split
from hfbench.training.objective import Objective

VOCABULARY_SIZE = 2048
BLOCK_TOKENS = 256
VALIDATION_SHARE = 0.02  # of the paragraphs
END = "<|endoftext|>"


def train_tokenizer(paragraphs: list[str]) -> GPT2Tokenizer:
    """A byte-level BPE tokenizer, which can write any text."""
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        paragraphs, vocab_size=VOCABULARY_SIZE, special_tokens=[END], show_progress=False
    )
    trained = json.loads(trainer.to_str())["model"]
    return GPT2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        model_max_length=BLOCK_TOKENS,
    )


def blocks_of(paragraphs: list[str], tokenizer: GPT2Tokenizer) -> TokenSamples:
    tokens = tokenizer(paragraphs, verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    padding = Padding({"input_ids": end, "labels": -100})
    return pack(tokens, end=end, max_length=BLOCK_TOKENS, padding=padding)


def main() -> None:
    parser = argument_parser(
        __doc__,
        output="gpt-tiny",
        epochs=2,
        batch_size=8,
        learning_rate=2e-3,
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
    train = blocks_of(paragraphs[held_out:], tokenizer)
    validation = blocks_of(paragraphs[:held_out], tokenizer)
    num_bytes = sum(len(text.encode()) for text in paragraphs[:held_out])
    print(f"{len(paragraphs):,} paragraphs, {len(train):,} + {len(validation):,} blocks")

    # No dropout in pre-training: every block is seen only a few times.
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=BLOCK_TOKENS,
        n_embd=128,
        n_layer=6,
        n_head=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    gpt = GPT2LMHeadModel(config)

    def collate(samples: list[Sample]) -> Batch:
        together = TokenSamples.of_samples(samples, train.padding)
        return together.read_batch(range(len(samples)), torch.device("cpu"))

    def evaluate(model: nn.Module) -> dict[str, Any]:
        found = predict_split(
            model,
            validation,
            collate=collate,
            loss_units=predicted_tokens,
            keep=lambda outputs, batch: token_scores(outputs.logits, batch["labels"]),
            batch_size=args.batch_size,
            accelerator=accelerator,
            lengths=validation.lengths(),
        )
        return {"loss": found.loss} | language_metrics(found.predictions, num_bytes)

    objective = Objective(collate=collate, loss_units=predicted_tokens, evaluate=evaluate)
    pretrained = pretrain(gpt, train, objective, accelerator, args)

    defaults = GPT2Config()
    for dropout in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):  # for fine-tuning
        setattr(config, dropout, getattr(defaults, dropout))
    gpt.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    write_card(
        args,
        pretrained,
        metadata="language: en\npipeline_tag: text-generation\nlibrary_name: transformers\n",
        description="A GPT-2 (6 blocks of width 128, 4 heads, byte-level BPE vocabulary of "
        f"{len(tokenizer):,}, output layer tied to the embeddings) pre-trained with causal "
        f"language modelling on English technical documentation, blocks of {BLOCK_TOKENS} tokens.",
        scores=f"Measured on {len(validation):,} blocks of {BLOCK_TOKENS} tokens "
        f"({num_bytes:,} bytes), made from {VALIDATION_SHARE:.0%} of the paragraphs, which were "
        "held out. Loss: nats a token. The epoch with the lowest loss was kept.\n",
        parameters=gpt.num_parameters(),
    )


if __name__ == "__main__":
    main()
