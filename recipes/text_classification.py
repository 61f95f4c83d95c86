"""Fine-tune a BERT-like checkpoint to classify texts (or pairs of texts).

    accelerate launch recipes/text_classification.py \
        --config recipes/configs/bert_base_sst2.yaml strategy=lora:r=8 seed=1

What happens, in this order: the data are read and tokenised once; the checkpoint is loaded and
its embeddings, blocks and head are found; the strategy decides what trains; the exact parameter
report is printed; the one loop trains, validating after every epoch; the best epoch is tested
once, saved, loaded again and compared; everything is written to result.json.

Strategies: full, head, last_2, first_2, blocks:0+3, lora:r=8,targets=all_linear, dora:r=8, qlora,
ia3, bitfit, norm, attention, gradual, scratch.
Data: a hub name, or a csv, json or parquet file of yours: data.source=reviews.csv.
Any key of the configuration can be given on the command line: training.epochs=2.
"""

import sys

from hfbench.start import recipe

if __name__ == "__main__":
    sys.exit(recipe("text_classification", __doc__))
