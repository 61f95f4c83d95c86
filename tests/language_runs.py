"""Settings of language models that train for two steps."""

from pathlib import Path

from hfbench.config import RunConfig, load_config


def settings(checkpoint: Path, data: Path, *more: str) -> RunConfig:
    small = ["data.max_length=16", "training.batch_size=4", "training.learning_rate=1e-3"]
    steps = ["training.max_steps=2", "training.epochs=1", "generation.max_new_tokens=3"]
    sources = [f"model.checkpoint={checkpoint}", f"data.source={data}"]
    return load_config(None, [*sources, *small, *steps, *more], task="causal_lm")
