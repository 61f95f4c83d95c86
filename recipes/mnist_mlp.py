"""Train a small network from random weights: the baseline without any pretraining.

    accelerate launch recipes/mnist_mlp.py --config recipes/configs/mnist_mlp.yaml seed=1

The steps are those of every recipe (see text_classification.py), with a network that is built
instead of a checkpoint that is loaded: its only strategy is scratch, its depth is the number of
its layers, and the exact parameter report has one row for each of them.

Network: network.widths=[256,128,64] network.activation=tanh network.loss=mse network.dropout=0.1,
or convolutions and pooling: network.kind=cnn network.channels=[16,32]. Learning:
training.optimizer=sgd training.momentum=0.9 training.l1=1e-5 training.l2=1e-4.
Data: MNIST from the hub, a folder of the original idx files, gzipped or not (data.source=mnist/;
Fashion-MNIST's files have the same names), or bundled/digits. All images lie in memory as tensors
and a batch is an index slice of them.
"""

import sys

from hfbench.start import recipe

if __name__ == "__main__":
    sys.exit(recipe("mnist_mlp", __doc__))
