"""Fine-tune a GPT-2-like checkpoint to continue texts, or to write completions of prompts.

    accelerate launch recipes/causal_lm.py \
        --config recipes/configs/gpt2_wikitext2.yaml strategy=lora:r=8 seed=1

What happens, in this order: the data are read and tokenised once; plain texts are packed into
blocks of data.max_length tokens, of prompts with completions only the completions are learnt; the
checkpoint is loaded and its embeddings and blocks are found; the strategy decides what trains; the
exact parameter report is printed; the one loop trains, validating after every epoch; the epoch with
the lowest perplexity is tested once, saved, loaded again and compared; everything is written to
result.json, also the perplexity before training. Completions are written and scored too.

Strategies: full, last_2, first_2, blocks:0+3, lora:r=8,targets=all_linear, dora:r=8, qlora, ia3,
bitfit, norm, attention, gradual, scratch; head where the output layer is not tied to the
embeddings, as GPT-2's is.
Data: a hub name, or a csv, json, parquet or txt file of yours: data.source=book.txt.
Any key of the configuration can be given on the command line: training.epochs=2.
"""

import sys

from hfbench.start import recipe

if __name__ == "__main__":
    sys.exit(recipe("causal_lm", __doc__))
