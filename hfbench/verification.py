"""Whether a saved model is the one that was measured: asked of a fresh process.

    python -m hfbench.verification MODEL_FOLDER CHECK_FILE

prints the greatest difference of the logits as JSON.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hfbench import provenance
from hfbench.disk import sync
from hfbench.orphans import helper
from hfbench.saving import load_model
from hfbench.training.batching import Batch

CHECK_FILE = "check.safetensors"
# Of the greatest logit. Some networks give other last bits when they are loaded again.
SAME_MACHINE_TOLERANCE = 1e-5
OTHER_MACHINE_TOLERANCE = 1e-3  # other kernels round otherwise
_LOGITS = "logits"
_INPUT = "input."


def store_check(model: nn.Module, batch: Batch, path: Path) -> None:
    """Write a batch and the model's logits (samples, ...) for it, and where they were computed."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(**{key: value.to(device) for key, value in batch.items()}).logits
    tensors = {_INPUT + key: value.contiguous() for key, value in batch.items()}
    temporary = path.with_name(f".partial-{path.name}")
    save_file(tensors | {_LOGITS: logits.cpu().contiguous()}, temporary, _place(device))
    sync(temporary)
    temporary.replace(path)


def verify(model_folder: Path, check_file: Path) -> None:
    """Load the saved model in a fresh process and compare its logits with the stored ones.

    On the machine that stored them they must be equal to ``SAME_MACHINE_TOLERANCE``, on another
    one to ``OTHER_MACHINE_TOLERANCE``.

    Raises:
        RuntimeError: they differ, or the model does not load.
    """
    command = helper("hfbench.verification", str(model_folder), str(check_file))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the model saved in {model_folder} does not load:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    share = SAME_MACHINE_TOLERANCE if found["same_place"] else OTHER_MACHINE_TOLERANCE
    if not found["difference"] <= share * found["greatest_logit"]:  # also for NaN
        raise RuntimeError(
            f"the model saved in {model_folder} gives other logits than the trained one: they "
            f"differ by {found['difference']:.3g}"
        )


def check_inputs(check_file: Path) -> Batch:
    """The stored batch."""
    tensors = load_file(check_file)
    return {k.removeprefix(_INPUT): v for k, v in tensors.items() if k.startswith(_INPUT)}


def _place(device: torch.device) -> dict[str, str]:
    machine = provenance.hardware()
    return {
        "device": device.type,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "processor": str(machine["gpus"] if device.type == "cuda" else machine["cpu"]),
    }


def _compare(model_folder: Path, check_file: Path) -> dict[str, object]:
    with safe_open(check_file, "pt") as file:
        place = file.metadata()
        expected: Tensor = file.get_tensor(_LOGITS)
    torch.set_num_threads(int(place["threads"]))
    available = place["device"] != "cuda" or torch.cuda.is_available()
    device = torch.device(place["device"] if available else "cpu")
    model = load_model(model_folder).to(device)
    with torch.no_grad():
        inputs = {key: value.to(device) for key, value in check_inputs(check_file).items()}
        actual: Tensor = model(**inputs).logits.cpu()
    return {
        "difference": (actual - expected).abs().max().item(),
        "greatest_logit": expected.abs().max().item(),
        "same_place": _place(device) == place,
    }


if __name__ == "__main__":
    print(json.dumps(_compare(Path(sys.argv[1]), Path(sys.argv[2]))))
