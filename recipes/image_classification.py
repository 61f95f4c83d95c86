"""Fine-tune a ViT-like checkpoint to classify images.

    accelerate launch recipes/image_classification.py \
        --config recipes/configs/vit_base_cifar10.yaml strategy=last_2 seed=1

The steps are those of every recipe (see text_classification.py): data, checkpoint, strategy, exact
parameter report, training with validation, one test, a saved model that was loaded again.

Strategies: full, head, last_2, first_2, blocks:0+3, lora:r=8,targets=all_linear, dora:r=8, qlora,
ia3, bitfit, norm, attention, gradual, scratch.
Data: a hub name, or a folder with one sub-folder of images per class: data.source=photos/.
Images are resized and normalised as the checkpoint's processor says.
timm's networks: model.source=timm model.checkpoint=vit_base_patch16_224.augreg_in21k.
"""

import sys

from hfbench.start import recipe

if __name__ == "__main__":
    sys.exit(recipe("image_classification", __doc__))
