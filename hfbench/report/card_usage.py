"""How to use a published model: a program that runs as it is, after one ``pip install``.

It repeats what training did to the input, in plain transformers (and PEFT). ``MODEL`` is the one
name to change for a downloaded copy; an adapter whose base is not on the Hub has ``BASE`` too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfbench.errors import UserError
from hfbench.report.card_metadata import Contents, Source, has_head, problem_type
from hfbench.report.markup import code_span, fenced
from hfbench.results import RunResult

_MARK = "  # this repository, or the folder of a copy"

_TEXT_INPUT = """\
TEXT = "Write your text here."
"""
_TEXT_PAIR_INPUT = """\
TEXT = ("Write the first text here.", "And the second one here.")
"""
_TEXT_BATCH = """\
longest = min({max_length}, tokenizer.model_max_length)  # tokens, as in training
batch = tokenizer({texts}, truncation=True, max_length=longest, return_tensors="pt")
"""
_IMAGE_INPUT = """\
FILE = None  # the path of your image, such as "photo.jpg"; None: an example
"""
_IMAGE_BATCH = """\
image = Image.linear_gradient("L") if FILE is None else Image.open(FILE)
grey = getattr(model.config, "num_channels", 3) == 1
image = ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
batch = processor(image, return_tensors="pt")
"""
_AUDIO_INPUT = """\
FILE = None  # the path of your recording, such as "word.wav"; None: an example, a tone
SECONDS = {max_seconds}  # as in training: of a longer recording the middle is used
"""
_CLIP = """\
rate_hz = extractor.sampling_rate
samples = round(SECONDS * rate_hz)
if FILE is None:
    clip = 0.1 * np.sin(2 * np.pi * 440 / rate_hz * np.arange(samples // 2))
else:
    clip, own_rate_hz = soundfile.read(FILE, dtype="float32", always_2d=True)
    clip = soxr.resample(clip.mean(axis=1), own_rate_hz, rate_hz, quality="HQ")
"""
_CROP = """\
start = max(0, (len(clip) - samples) // 2)
clip = clip[start : start + samples].astype(np.float32)
"""
# Networks without a mask, or with a norm over the whole clip, were trained on clips of one length.
_CLIP_BATCH = """\
name = extractor.model_input_names[0]
features = extractor(clip, sampling_rate=rate_hz, return_tensors="pt")[name]
group_norm = getattr(model.config, "feat_extract_norm", None) == "group"
if features.ndim == 2 and (group_norm or not extractor.return_attention_mask):
    missing = samples - features.shape[1]  # training padded every clip to SECONDS
    features = torch.nn.functional.pad(features, (0, missing), value=extractor.padding_value)
batch = {{name: features}}
"""
_SPEECH_INPUT = """\
FILE = None  # the path of your recording, such as "sentence.wav"; None: an example, a tone
SECONDS = {max_seconds}  # as in training: the longest recording
"""
_SPEECH_BATCH = """\
extractor = processor.feature_extractor
"""
_TRANSCRIPT = """\
with torch.inference_mode():
    path = model(**batch).logits[0].argmax(dim=-1)
print(f"transcript: {processor.tokenizer.decode(path)}")
"""
_ANSWERS: Mapping[str, str] = {
    "single_label_classification": """\
with torch.inference_mode():
    probabilities = model(**batch).logits.softmax(dim=-1)[0]
best = int(probabilities.argmax())
print(f"{model.config.id2label[best]}: {probabilities[best]:.4f}")
""",
    "multi_label_classification": """\
with torch.inference_mode():
    probabilities = model(**batch).logits.sigmoid()[0]
for number, probability in enumerate(probabilities.tolist()):
    applies = "applies" if probability >= 0.5 else "does not apply"
    print(f"{model.config.id2label[number]}: {probability:.4f}, {applies}")
""",
    "regression": """\
with torch.inference_mode():
    value = model(**batch).logits[0, 0]
print(f"{model.config.id2label[0]}: {value:.6g}")
""",
}
_PROMPT_BATCH = """\
batch = tokenizer(TEXT{separator}, add_special_tokens=False, return_tensors="pt")
batch["max_new_tokens"] = {max_new_tokens}  # the answer is cut there
"""
_CONTINUATION = """\
with torch.inference_mode():
    written = model.generate(**batch, do_sample=False, pad_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(written[0, batch["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class _Usage:
    """What the program needs for one task."""

    model_class: str
    processor_class: str
    processor: str  # its variable
    input: str  # what whoever uses it replaces
    batch: str  # from the input to the model's arguments
    imports: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    answer: str | None = None  # None: of the problem type


_USAGES: Mapping[str, _Usage] = {
    "text_classification": _Usage(
        model_class="AutoModelForSequenceClassification",
        processor_class="AutoTokenizer",
        processor="tokenizer",
        input=_TEXT_INPUT,
        batch=_TEXT_BATCH,
    ),
    "image_classification": _Usage(
        model_class="AutoModelForImageClassification",
        processor_class="AutoImageProcessor",
        processor="processor",
        input=_IMAGE_INPUT,
        batch=_IMAGE_BATCH,
        imports=("from PIL import Image, ImageOps",),
        packages=("torchvision", "pillow"),
    ),
    "audio_classification": _Usage(
        model_class="AutoModelForAudioClassification",
        processor_class="AutoFeatureExtractor",
        processor="extractor",
        input=_AUDIO_INPUT,
        batch=_CLIP + _CROP + _CLIP_BATCH,
        imports=("import numpy as np", "import soundfile", "import soxr"),
        packages=("soundfile", "soxr"),
    ),
    "speech_recognition": _Usage(
        model_class="AutoModelForCTC",
        processor_class="AutoProcessor",
        processor="processor",
        input=_SPEECH_INPUT,
        batch=_SPEECH_BATCH + _CLIP + _CLIP_BATCH,
        imports=("import numpy as np", "import soundfile", "import soxr"),
        packages=("soundfile", "soxr"),
        answer=_TRANSCRIPT,
    ),
    "causal_lm": _Usage(
        model_class="AutoModelForCausalLM",
        processor_class="AutoTokenizer",
        processor="tokenizer",
        input=_TEXT_INPUT,
        batch=_PROMPT_BATCH,
        answer=_CONTINUATION,
    ),
}


_IN_4_BITS = (
    "The adapter was trained on, and measured with, a base whose linear layers are in 4 bits. This "
    "program loads the base as it is, so its answers are not exactly the measured ones; "
    "`hfbench predict` loads it as it was trained."
)


def usage_section(
    result: RunResult, *, repo_id: str, contents: Contents, revision: str | None, checkpoint: Source
) -> str:
    """The packages, the program, and what else an adapter needs.

    Raises UserError for a task whose models this does not know.
    """
    if result.task not in _USAGES:
        raise UserError(
            f"there is no model card for the task {result.task!r}; there are some for: "
            f"{', '.join(_USAGES)}"
        )
    usage = _USAGES[result.task]
    base = checkpoint if contents == "adapter" else None
    parts = [
        "## How to use it",
        fenced(f"pip install {' '.join(_packages(usage, result, base))}"),
        fenced(_program(usage, result, repo_id=repo_id, revision=revision, base=base), "python"),
    ]
    if base is not None:
        parts.insert(2, _what_the_base_is(base, head=has_head(result)))
    if result.config["strategy"]["name"] == "qlora":
        parts.append(_IN_4_BITS)
    return "\n\n".join(parts)


def _packages(usage: _Usage, result: RunResult, base: Source | None) -> list[str]:
    """Not older than what saved the model: an older library may not read its files."""
    versions = result.versions
    saved_by = ["transformers", *(["peft"] if base is not None else [])]
    model = result.config["model"]
    if model.get("source") == "timm" or model["checkpoint"].startswith("timm/"):
        saved_by.append("timm")
    bounds = [f'"{name}>={versions[name]}"' if name in versions else name for name in saved_by]
    return ["torch", *bounds, *usage.packages]


def _what_the_base_is(base: Source, *, head: bool) -> str:
    holds = f"This repository holds the adapter{' and the trained head' if head else ''}."
    if base.kind == "bundled":
        return f"{holds} The base, {code_span(base.name)}, comes with hfbench: install that too."
    if base.kind == "local":
        return (
            f"{holds} The base, {code_span(base.name)}, is not on the Hub: whoever trained this "
            "has it. Set `BASE` to its folder."
        )
    return f"{holds} The base, {base.pinned}, is fetched by its name."


def _program(
    usage: _Usage, result: RunResult, *, repo_id: str, revision: str | None, base: Source | None
) -> str:
    at = "" if revision is None else f", revision={json.dumps(revision)}"
    load = f"{usage.model_class}.from_pretrained"
    lines = [f"MODEL = {json.dumps(repo_id)}{_MARK}"]
    if base is None:
        loading = f"model = {load}(MODEL{at}).eval()\n"
    else:
        lines += _base_name(base)
        new = has_head(result) and (result.weights is None or result.weights.has_new_head)
        loading = _adapter_loading(load, base, at, new_head=new)
    processor = f"{usage.processor} = {usage.processor_class}.from_pretrained(MODEL{at})\n"
    pair = "text_pair" in result.data["columns"]
    data: Mapping[str, Any] = result.config["data"]
    facts = {
        "max_length": data["max_length"],
        "max_seconds": result.max_seconds,
        "texts": "*TEXT" if pair else "TEXT",
        "separator": _separator(result),
        "max_new_tokens": result.config.get("generation", {}).get("max_new_tokens"),
    }
    answer = usage.answer or _ANSWERS[problem_type(result)]
    asked = _TEXT_PAIR_INPUT if pair else usage.input
    head = "\n".join([*_imports(usage, base), "", *lines, asked.format(**facts)])
    return f"{head}\n{processor}{loading}{usage.batch.format(**facts)}{answer}"


def _separator(result: RunResult) -> str:
    """What training put behind a prompt, as it is added to one; nothing for plain texts."""
    if "completion" not in result.data["columns"]:
        return ""
    return f" + {json.dumps(result.config['data']['separator'].rstrip(' '))}"


def _imports(usage: _Usage, base: Source | None) -> list[str]:
    names = [usage.model_class, usage.processor_class]
    imports = [*usage.imports, "import torch"]
    if base is not None:
        names.append("AutoConfig")
        imports.append(f"from peft import {'PeftConfig, ' if base.kind == 'hub' else ''}PeftModel")
        if base.kind == "bundled":
            imports.append("from hfbench.models.bundled import resolve_checkpoint")
    imports.append(f"from transformers import {', '.join(sorted(names))}")
    return sorted(imports, key=lambda line: (line.startswith("from"), line))


def _base_name(base: Source) -> list[str]:
    if base.kind == "bundled":
        return [f"BASE = resolve_checkpoint({json.dumps(base.name)})"]
    if base.kind == "local":
        return [f"BASE = {json.dumps(base.name)}  # the folder of the base checkpoint"]
    return []


def _adapter_loading(load: str, base: Source, at: str, *, new_head: bool) -> str:
    """The base gets the adapter's configuration, so that its new head fits the trained one."""
    where = ["BASE"]
    known = ""
    if base.kind == "hub":
        known = f"adapter = PeftConfig.from_pretrained(MODEL{at})  # names base and revision\n"
        where = ["adapter.base_model_name_or_path", "revision=adapter.revision"]
    new = "  # with a new head, as its report says; the trained one comes with the adapter"
    new = new if new_head else ""
    arguments = [*where, "config=config", "ignore_mismatched_sizes=True"]
    return (
        f"{known}config = AutoConfig.from_pretrained(MODEL{at})  # has the labels\n"
        f"base = {load}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){new}\n"
        f"model = PeftModel.from_pretrained(base, MODEL{at}).eval()\n"
    )
