"""Small models of several architectures, and samples to compare two ways through them on."""

from typing import Any

import torch
import transformers
from live_step import make_model
from torch import Tensor, nn

from hfbench.training.probe import Probe, Reading


class Samples:
    """A batch's rows as samples, each of its own length."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch
        mask = batch.get("attention_mask")
        self.lengths = None if mask is None else mask.sum(1).tolist()

    def __len__(self) -> int:
        return len(self.batch["labels"])

    def digest(self) -> str:
        return str(sum(value.double().sum() for value in self.batch.values()))

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {key: value[index] for key, value in self.batch.items()}
        if self.lengths is not None:
            length = self.lengths[index]
            sample |= {k: v[:length] for k, v in sample.items() if v.ndim}
        return sample


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {
        key: nn.utils.rnn.pad_sequence([sample[key] for sample in samples], batch_first=True)
        if samples[0][key].ndim == 1
        else torch.stack([sample[key] for sample in samples])
        for key in samples[0]
    }


def probe_of(model: nn.Module, batch: dict[str, Tensor]) -> Probe:
    reading = Reading(
        collate,
        lambda split: split.lengths,
        lambda outputs, batch: outputs.logits,
        batch_size=2,
    )
    return Probe(model, Samples(batch), reading, torch.device("cpu"))


def other_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    small = {"vocab_size": 200, "num_labels": 3, "max_position_embeddings": 128}
    if name == "distilbert":
        config = transformers.DistilBertConfig(
            dim=64, hidden_dim=128, n_layers=4, n_heads=4, **small
        )
        return transformers.DistilBertForSequenceClassification(config)
    common = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    if name in ("deberta", "deberta-with-convolution"):
        relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
        if name != "deberta":
            relative |= {"conv_kernel_size": 3}
        config = transformers.DebertaV2Config(
            norm_rel_ebd="layer_norm", **relative, **common, **small
        )
        return transformers.DebertaV2ForSequenceClassification(config)
    if name == "mpnet":
        config = transformers.MPNetConfig(**common, **small)
        return transformers.MPNetForSequenceClassification(config)
    if name == "albert":
        config = transformers.AlbertConfig(embedding_size=32, **common, **small)
        return transformers.AlbertForSequenceClassification(config)
    if name == "timm":
        config = transformers.TimmWrapperConfig(
            architecture="vit_tiny_patch16_224", num_labels=3, model_args={"depth": 4}
        )
        config.model_args |= {"img_size": 32, "patch_size": 8}
        return transformers.TimmWrapperForImageClassification(config)
    return make_model(name)


class TimmNetwork(nn.Module):
    """A timm network with outputs as of transformers."""

    base_model_prefix = "network"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.network(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return transformers.modeling_outputs.ImageClassifierOutput(loss=loss, logits=logits)
