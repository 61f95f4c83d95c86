"""Seconds and memory of ``hfbench --help`` and ``hfbench params`` beside Accelerate's command.

    make bench

Each command starts a process of its own, in turn, so that a machine whose speed drifts treats all
alike. "First" answers from an empty cache, "again" from a kept answer. Memory is the largest
resident set of the process.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
LLAMA_405B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
}
GIB = 2**30


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "llama_405b.json"
        config.write_text(json.dumps(LLAMA_405B))
        params = [sys.executable, "-m", "hfbench", "params"]
        llama = [*params, str(config), "--task", "causal_lm", "--strategies"]
        commands = {
            "import torch and transformers' Llama": [
                sys.executable,
                "-c",
                "import torch, transformers.models.llama.modeling_llama",
            ],
            "hfbench --help": [*params[:-1], "--help"],
            "wav2vec2-base, five strategies": [*params, "facebook/wav2vec2-base"],
            "Llama 405B, full, head, last_2, bitfit": [*llama, "full,head,last_2,bitfit"],
            "Llama 405B, full, head, lora": [*llama, "full,head,lora"],
            "accelerate estimate-memory --help": [
                str(Path(sys.executable).parent / "accelerate"),
                "estimate-memory",
                "--help",
            ],
        }
        measured: dict[str, list[tuple[float, float]]] = {}
        for round_number in range(ROUNDS):
            cache = str(Path(folder) / f"cache_{round_number}")
            for name, command in commands.items():
                measured.setdefault(name, []).append(start(command, cache))
                if command[: len(params)] == params:
                    measured.setdefault(f"{name}, again", []).append(start(command, cache))
    for name, values in measured.items():
        seconds = [value for value, _ in values]
        print(
            f"{name:45} {statistics.median(seconds):6.2f} s "
            f"({min(seconds):.2f}-{max(seconds):.2f}), "
            f"{max(memory for _, memory in values) / GIB:.2f} GiB"
        )


def start(command: list[str], cache: str) -> tuple[float, float]:
    """Seconds until the command ends, and its peak memory in bytes."""
    environment = os.environ | {"XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1"}
    with open(os.devnull, "w") as nowhere:
        silent = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), descriptor) for descriptor in (1, 2)]
        started = time.perf_counter()
        process = os.posix_spawn(command[0], command, environment, file_actions=silent)
        _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{' '.join(command)} failed")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return seconds, usage.ru_maxrss * unit


if __name__ == "__main__":
    main()
