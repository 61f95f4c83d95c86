"""Whose head a classifier starts with: decided by the names of the labels."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from hfbench.config import ModelConfig, load_config
from hfbench.errors import UserError
from hfbench.models import loading
from hfbench.models.heads import named_labels
from hfbench.models.label_heads import choose_head, settle_head
from hfbench.models.structure import canonical_name, is_duplicate
from hfbench.preparation import Prepared, describe, make_accelerator, prepare
from hfbench.report.weights import weights_lines
from hfbench.results import NEW_HEAD, OWN_HEAD, REORDERED_HEAD
from hfbench.tasks import make_task

NAMES = ("ape", "bee", "cow")


def timm_vit() -> Any:
    values = {
        "architecture": "deit_tiny_distilled_patch16_224",  # with two heads
        "model_args": {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2},
        "num_classes": 3,
    }
    config = transformers.TimmWrapperConfig.from_dict(values)
    return transformers.TimmWrapperForImageClassification(config)


def roberta() -> Any:
    config = transformers.RobertaConfig(vocab_size=50, **tiny_models.SMALL)
    return transformers.RobertaForSequenceClassification(config)


NETWORKS = [
    (tiny_models.bert, AutoModelForSequenceClassification, {"classifier"}),
    (roberta, AutoModelForSequenceClassification, {"classifier.out_proj"}),
    (tiny_models.deberta, AutoModelForSequenceClassification, {"classifier"}),
    (tiny_models.gpt2, AutoModelForSequenceClassification, {"score"}),
    (tiny_models.vit, AutoModelForImageClassification, {"classifier"}),
    (timm_vit, AutoModelForImageClassification, {"timm_model.head", "timm_model.head_dist"}),
    (tiny_models.wav2vec2, AutoModelForAudioClassification, {"classifier"}),
]
EACH = pytest.mark.parametrize(
    ("made", "model_class", "heads"), NETWORKS, ids=[made.__name__ for made, *_ in NETWORKS]
)


def saved(model: Any, folder: Path, names: Sequence[str] = NAMES) -> ModelConfig:
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.save_pretrained(folder)
    return ModelConfig(checkpoint=str(folder))


def started(checkpoint: ModelConfig, model_class: Any, names: Sequence[str]) -> loading.Loaded:
    """The checkpoint for data with these labels, as the tasks load it."""
    own = named_labels(loading.load_config(checkpoint).id2label)
    config = loading.load_config(checkpoint, num_labels=len(names), id2label=dict(enumerate(names)))
    choice = choose_head(checkpoint, own, names)
    found = loading.load_model(checkpoint, config, model_class)
    return settle_head(found, choice, model_class, checkpoint=checkpoint)


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    if "Timm" in type(model).__name__:
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator())}
    return {k: v for k, v in tiny_models.batch_for(model).items() if k != "labels"}


@EACH
@pytest.mark.parametrize("order", [("ape", "bee", "cow"), ("cow", "ape", "bee")])
def test_the_same_names_keep_each_labels_logits_in_any_order(
    tmp_path: Path, made: Callable[[], Any], model_class: Any, heads: set[str], order: list[str]
) -> None:
    model = made().eval()
    found = started(saved(model, tmp_path), model_class, order)
    assert found.new_parameters == set()
    assert found.weights.head == (OWN_HEAD if list(order) == list(NAMES) else REORDERED_HEAD)
    inputs = inputs_of(model)
    with torch.no_grad():
        expected, actual = model(**inputs).logits, found.model(**inputs).logits
    for name in NAMES:
        torch.testing.assert_close(
            actual[:, order.index(name)], expected[:, NAMES.index(name)], rtol=1e-5, atol=1e-6
        )


@EACH
@pytest.mark.parametrize("head", [None, "new"])
def test_other_names_or_the_wish_for_one_give_a_new_head(
    tmp_path: Path,
    made: Callable[[], Any],
    model_class: Any,
    heads: set[str],
    head: str | None,
) -> None:
    model = made()
    saved(model, tmp_path)
    checkpoint = ModelConfig(checkpoint=str(tmp_path), head=head)  # type: ignore[arg-type]
    names = NAMES if head == "new" else ("ape", "bee", "dog")
    found, again = (
        (set_seed(0), started(checkpoint, model_class, names).model)[1] for _ in range(2)
    )
    differing = {
        name.rpartition(".")[0]
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, found.get_parameter(name))
    }
    assert differing == heads
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        assert parameter.isfinite().all()


def test_a_new_head_is_named_and_trains(tmp_path: Path) -> None:
    checkpoint = saved(tiny_models.bert(), tmp_path)
    found = started(checkpoint, AutoModelForSequenceClassification, ("x", "y", "z"))
    assert found.new_parameters == {"classifier.weight", "classifier.bias"}
    assert found.weights.head == NEW_HEAD
    assert weights_lines(found.weights) == [
        "weights: the head is new; new are head (classifier.bias, classifier.weight)"
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("LABEL_0", "LABEL_1"), None),
        (("LABEL_0", "good"), ("LABEL_0", "good")),
        (("0", "1"), ("0", "1")),
    ],
)
def test_transformers_default_names_are_no_names(
    names: Sequence[str], expected: tuple[str, ...] | None
) -> None:
    assert named_labels(dict(enumerate(names))) == expected


@pytest.mark.parametrize(
    ("own", "data", "head", "rows"),
    [
        (("a", "b"), ("b", "a"), None, (1, 0)),
        (("a", "b"), ("a", "b"), "reuse", (0, 1)),
        (("a", "b"), ("a", "b"), "new", None),
        (("a", "b"), ("a", "c"), None, None),
        (("a", "b", "c"), ("a", "b"), None, None),
        (None, ("LABEL_0", "LABEL_1"), None, None),
    ],
)
def test_rows_follow_the_names(
    own: Sequence[str] | None, data: Sequence[str], head: Any, rows: tuple[int, ...] | None
) -> None:
    assert choose_head(ModelConfig("x", head=head), own, data).rows == rows


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (("good", "bad", "so-so"), "has the labels good, bad, so-so"),
        (("good", "poor"), "the data have the labels bad, good, and checkpoint 'x' has the labels"),
        (None, "has no names of labels"),
    ],
)
def test_reusing_a_head_for_other_labels_is_refused_with_both(
    own: Sequence[str] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose_head(ModelConfig("x", head="reuse"), own, ("bad", "good"))


def test_reusing_a_head_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    saved(transformers.BertModel(tiny_models.bert().config), tmp_path)
    found = started(ModelConfig(str(tmp_path)), AutoModelForSequenceClassification, NAMES)
    assert found.weights.head == NEW_HEAD
    reuse = ModelConfig(str(tmp_path), head="reuse")
    with pytest.raises(UserError, match=r"hold no head for these labels \(classifier\.bias"):
        started(reuse, AutoModelForSequenceClassification, NAMES)


def test_half_a_head_in_the_file_is_drawn_anew_whole(tmp_path: Path) -> None:
    model = tiny_models.bert()
    checkpoint = saved(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    old = stored.pop("classifier.bias"), stored["classifier.weight"]
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = started(checkpoint, AutoModelForSequenceClassification, NAMES[::-1])
    assert found.new_parameters == {"classifier.weight", "classifier.bias"}
    assert found.weights.head == NEW_HEAD
    assert list(found.weights.new["head"]) == ["classifier.bias", "classifier.weight"]
    drawn = found.model.classifier.weight
    shared = [row for row in drawn if any(torch.equal(row, other) for other in old[1])]
    assert shared == []
    assert drawn.isfinite().all()


@pytest.fixture(scope="module")
def trained_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of ``down`` and ``up``, in the other order than the data sort them."""
    folder = tmp_path_factory.mktemp("trained_bert")
    shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = transformers.BertConfig.from_pretrained(
        tiny_bert, id2label={0: "up", 1: "down"}, label2id={"up": 0, "down": 1}
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def prepared(checkpoint: Path, texts: Path, tmp_path: Path, *settings: str) -> tuple[Prepared, str]:
    config = load_config(
        None,
        [
            f"model.checkpoint={checkpoint}",
            f"data.source={texts}",
            f"output_dir={tmp_path / 'run'}",
            *settings,
        ],
        task="text_classification",
    )
    found = prepare(config, make_task(config), make_accelerator(config))
    return found, describe(config, found)


def head_of(found: Prepared) -> dict[str, torch.Tensor]:
    return {
        canonical_name(name): parameter
        for name, parameter in found.model.named_parameters()
        if found.structure.part_of(name) == "head" and not is_duplicate(name)
    }


@pytest.mark.parametrize("head", ["reuse", "new"])
def test_every_strategy_starts_with_the_same_head(
    trained_bert: Path, texts: Path, tmp_path: Path, head: str
) -> None:
    starts = [
        head_of(prepared(trained_bert, texts, tmp_path, f"strategy={s}", f"model.head={head}")[0])
        for s in ("full", "head", "lora", "bitfit")
    ]
    stored = load_file(trained_bert / "model.safetensors")
    for start in starts:
        assert start.keys() == {"classifier.weight", "classifier.bias"}
        for name, value in start.items():
            assert torch.equal(value, starts[0][name])
    reused = torch.equal(starts[0]["classifier.weight"], stored["classifier.weight"].flip(0))
    assert reused == (head == "reuse")


def test_what_the_head_is_is_said_before_training(
    trained_bert: Path, texts: Path, tmp_path: Path
) -> None:
    _, said = prepared(trained_bert, texts, tmp_path, "strategy=head")
    own = "the head is the checkpoint's own, its rows in the data's order of labels"
    assert f"weights: {own}; nothing is new" in said
    _, said = prepared(trained_bert, texts, tmp_path, "strategy=head", "model.head=new")
    assert "weights: the head is new; new are head (classifier.bias, classifier.weight)" in said


def test_a_head_of_another_kind_of_answer_is_not_reused(
    trained_bert: Path, texts: Path, tmp_path: Path
) -> None:
    """One label of two against any of two: the same names, other logits."""
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    several = tmp_path / "several.jsonl"
    several.write_text("\n".join(json.dumps(row | {"label": [row["label"]]}) for row in rows))
    found, _ = prepared(trained_bert, several, tmp_path, "strategy=head")
    assert found.weights is not None
    assert found.weights.head == NEW_HEAD


@pytest.mark.parametrize("task", ["causal_lm", "mnist_mlp"])
def test_tasks_without_a_head_of_labels_refuse_the_key(task: str) -> None:
    with pytest.raises(UserError, match=r"model\.head=new belongs to text_classification"):
        load_config(None, ["model.head=new"], task=task)
