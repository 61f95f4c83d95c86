"""Small models, and what a training step of them really takes on this CPU."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from hfbench.config import TrainingConfig, parse_strategy
from hfbench.models.structure import Structure, find_structure
from hfbench.strategies import apply_strategy, set_training_mode
from hfbench.training.optimizer import LearningRates, build_optimizer

STRATEGIES = ("full", "head", "last_2", "first_2", "lora", "bitfit")
MODELS = ("bert", "vit", "wav2vec2", "gpt2")

_aten = torch.ops.aten
# PyTorch's counter leaves out the CPU's fused attention; the formulas are those for CUDA.
CPU_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ].__wrapped__,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ].__wrapped__,
}


def make_model(name: str, *, hidden: int = 64) -> nn.Module:
    """Four blocks with dropout, 3 labels."""
    shared = {
        "hidden_size": hidden,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 4 * hidden,
        "num_labels": 3,
    }
    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(vocab_size=200, max_position_embeddings=128, **shared)
        return transformers.BertForSequenceClassification(config)
    if name == "vit":
        config = transformers.ViTConfig(
            image_size=32,
            patch_size=4,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            **shared,
        )
        return transformers.ViTForImageClassification(config)
    if name == "wav2vec2":
        config = transformers.Wav2Vec2Config(
            conv_dim=(32, 32, 32),
            conv_kernel=(10, 8, 4),
            conv_stride=(8, 5, 4),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            classifier_proj_size=32,
            mask_time_length=4,
            layerdrop=0.0,
            **shared,
        )
        return transformers.Wav2Vec2ForSequenceClassification(config)
    config = transformers.GPT2Config(
        vocab_size=200,
        n_positions=128,
        n_embd=hidden,
        n_layer=4,
        n_head=4,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    if name == "gpt2_lm":
        return transformers.GPT2LMHeadModel(config)
    return transformers.GPT2ForSequenceClassification(config)


def make_batch(name: str, samples: int = 4) -> dict[str, Tensor]:
    """Texts have 48 tokens, one sample with padding, as in most batches.

    Labels are one a sample, of the language model one a token.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % 3
    if name == "vit":
        return {
            "pixel_values": torch.randn(samples, 3, 32, 32, generator=generator),
            "labels": labels,
        }
    if name == "wav2vec2":
        return {"input_values": torch.randn(samples, 8000, generator=generator), "labels": labels}
    tokens = torch.randint(2, 200, (samples, 48), generator=generator)
    mask = torch.ones_like(tokens)
    tokens[0, 40:] = mask[0, 40:] = 0
    if name == "gpt2_lm":
        labels = tokens.clone()
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def with_strategy(name: str, strategy: str, *, hidden: int = 64) -> tuple[nn.Module, Structure]:
    model = make_model(name, hidden=hidden)
    structure = find_structure(model)
    return apply_strategy(model, structure, parse_strategy(strategy)), structure


@dataclass(frozen=True)
class Live:
    """Measured in a step after the first."""

    standing_bytes: int  # weights, buffers, optimiser state, batch
    passes_peak_bytes: int  # beyond them
    saved_bytes: int
    forward_flops: int
    backward_flops: int
    optimizer_bytes: int


def training_step(
    model: nn.Module, batch: dict[str, Tensor], precision: str
) -> tuple[torch.optim.Optimizer, Callable[[], None]]:
    """What ``fit`` does with one batch."""
    optimizer = build_optimizer(
        model,
        rates=LearningRates(1e-4, 1e-4),
        config=TrainingConfig(),
        is_head=lambda name: False,
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step() -> None:
        forward(model, batch, precision).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return optimizer, step


def forward(model: nn.Module, batch: dict[str, Tensor], precision: str) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss: Tensor = model(**batch).loss
    return loss


def measure(
    model: nn.Module, structure: Structure, batch: dict[str, Tensor], precision: str
) -> Live:
    set_training_mode(model, structure)
    optimizer, step = training_step(model, batch, precision)
    step()  # the optimiser's state is made
    own = [*model.parameters(), *model.buffers(), *batch.values()]
    state = [t for values in optimizer.state.values() for t in values.values()]
    peak = peak_allocated(step)
    saved = saved_bytes(lambda: forward(model, batch, precision), outside=own)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        loss = forward(model, batch, precision)
        forward_flops = counter.get_total_flops()
        loss.backward()
    return Live(
        standing_bytes=sum(tensor.nbytes for tensor in [*own, *state]),
        passes_peak_bytes=peak,
        saved_bytes=saved,
        forward_flops=forward_flops,
        backward_flops=counter.get_total_flops() - forward_flops,
        optimizer_bytes=sum(tensor.nbytes for tensor in state),
    )


def peak_allocated(action: Callable[[], object]) -> int:
    """The most bytes that ``action`` held at once, from PyTorch's own record of its allocator.

    It has every allocation, those inside kernels too, and shares nothing with the trace that it
    is compared with. (The resident size of the process also has caches and libraries.)
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        action()
    records = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert records
    held = peak = 0
    for record in sorted(records, key=lambda record: record.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    return peak


def saved_bytes(action: Callable[[], Tensor], *, outside: list[Tensor]) -> int:
    """Bytes of the storages that autograd saves in a forward pass, each once."""
    known = {tensor.untyped_storage().data_ptr() for tensor in outside}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = action()
    total = sum(saved.values())
    del loss
    return total
