"""Configurations: precedence, types, spellings, and messages for mistakes."""

from pathlib import Path

import pytest

from hfbench.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    StrategyConfig,
    flatten,
    load_config,
    parse_strategy,
)
from hfbench.errors import UserError
from hfbench.inheritance import DESCRIBED_BY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", StrategyConfig(name="full")),
        ("last_2", StrategyConfig(name="last_n", n=2)),
        ("first_12", StrategyConfig(name="first_n", n=12)),
        ("blocks:0+3", StrategyConfig(name="blocks", blocks=(0, 3))),
        (
            "lora:r=4,targets=all_linear,last_n=2",
            StrategyConfig(name="lora", r=4, targets="all_linear", last_n=2),
        ),
        ("full:freeze=*.bias+bert.*", StrategyConfig(name="full", freeze=("*.bias", "bert.*"))),
        ("bitfit", StrategyConfig(name="bitfit")),
        ("norm", StrategyConfig(name="norm")),
        ("dora:r=4,last_n=1", StrategyConfig(name="dora", r=4, last_n=1)),
        ("attention", StrategyConfig(name="attention")),
        ("lora:learning_rate_factor=2.5", StrategyConfig(name="lora", learning_rate_factor=2.5)),
    ],
)
def test_a_strategy_has_one_spelling(text: str, expected: StrategyConfig) -> None:
    assert parse_strategy(text) == expected
    assert expected.label == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lats_2", "'lats_2' is not one of full, head"),
        ("last_0", "strategy.n=0 must be a number >= 1"),
        ("last_n", "strategy.n=None must be a number >= 1"),
        ("blocks", "needs the list of blocks"),
        ("blocks:a+b", "'a' is not a valid int"),
        ("lora:rank=4", "unknown key 'strategy.rank'"),
        ("lora:r", "option 'r' is not written key=value"),
        ("lora:r=0", "strategy.r=0 must be"),
        ("lora:targets=qv", "'qv' is not one of attention_qv"),
    ],
)
def test_a_misspelt_strategy_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_strategy(text)


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: text_classification\n"
        "strategy: lora:r=4\n"
        "training: {learning_rate: 3e-4, epochs: 2}\n"
    )
    config = load_config(path, ["training.epochs=5", "strategy.r=16", "model.checkpoint=a/b"])
    assert config.training.learning_rate == 3e-4  # PyYAML reads 3e-4 as text
    assert config.training.epochs == 5
    assert config.training.batch_size == RunConfig().training.batch_size
    assert config.strategy == StrategyConfig(name="lora", r=16)
    assert config.model.checkpoint == "a/b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=two", "training.epochs='two' is not a valid int"),
        ("training.epochs=1.5", "training.epochs=1.5 is not a valid int"),
        ("training.epochs=0", "training.epochs=0 must be a number >= 1"),
        ("training.learning_rate=nan", "'nan' is not a valid float"),
        ("training.epoch=2", "unknown key 'training.epoch' .did you mean 'epochs'"),
        ("training=2", "training=2 must be a section"),
        ("training.mixed_precision=fp8", "'fp8' is not one of no, bf16, fp16"),
        ("data.validation_fraction=1.5", "must be in .0, 1."),
        ("strategy.freeze=[*.bias]", "the value is not valid YAML"),
        (
            "strategy=head:last_n=2",
            "strategy.last_n belongs to lora, dora and qlora, not to head.*write last_2",
        ),
        ("seed=-1", "seed=-1 must be from 0"),
        ("seed", "override 'seed' is not written key=value"),
        ("tracker=excel", "'excel' is not one of none, tensorboard"),
        ("strategy.freeze=word", "strategy.freeze='word' must be a list"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override])


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'nowhere.yaml' does not exist"):
        load_config("nowhere.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_config(path)
    path.write_bytes(b"task: \xff")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_config(path)
    path.write_text("- a")
    with pytest.raises(UserError, match="holds no key: value pairs"):
        load_config(path)
    path.write_text("task: image_classification")
    with pytest.raises(UserError, match="for the task 'image_classification', not for 'text"):
        load_config(path, task="text_classification")


def test_yaml_booleans_become_the_word_no() -> None:
    assert load_config(None, ["training.mixed_precision=no"]).training.mixed_precision == "no"


def test_every_config_of_the_recipes_is_valid() -> None:
    paths = sorted(Path(__file__).parents[1].glob("recipes/configs/*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        config = load_config(path)
        assert config.model.checkpoint or config.network or config.task.startswith("pretrain")


FILE = """
task: text_classification
model: {checkpoint: google-bert/bert-base-uncased, revision: abc}
data: {source: nyu-mll/glue, name: sst2, test_split: validation, text_column: s, max_length: 99}
strategy: lora:r=4,last_n=2
training: {epochs: 2}
hub: {repo_id: me/bert-sst2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    return path


def load_with_notes(path: Path, *overrides: str) -> tuple[RunConfig, list[str]]:
    notes: list[str] = []
    return load_config(path, overrides, say=notes.append), notes


def test_what_describes_a_source_goes_with_it(file: Path) -> None:
    config, notes = load_with_notes(file, "data.source=my/data", "data.text_column=words")
    assert config.data == DataConfig(source="my/data", text_column="words", max_length=99)
    assert config.hub.repo_id is None
    assert (config.model.revision, config.strategy.r) == ("abc", 4)
    assert notes == [
        "note: data.source=my/data instead of the file's nyu-mll/glue: what the file says of that "
        "is left out (data.name=sst2, data.test_split=validation, hub.repo_id=me/bert-sst2)"
    ]


def test_what_describes_a_checkpoint_goes_with_it(file: Path) -> None:
    config, notes = load_with_notes(file, "hub.repo_id=me/other", "model.checkpoint=gpt2")
    assert config.model == ModelConfig(checkpoint="gpt2")
    assert (config.data.name, config.hub.repo_id) == ("sst2", "me/other")
    assert len(notes) == 1
    assert notes[0].endswith("(model.revision=abc)")


@pytest.mark.parametrize(
    ("override", "strategy", "left_out"),
    [
        ("strategy.name=head", "head", "(strategy.r=4, strategy.last_n=2)"),
        ("strategy=lora:r=2", "lora:r=2", "(strategy.last_n=2)"),
        ("strategy=lora", "lora", "(strategy.r=4, strategy.last_n=2)"),
        ("strategy=last_1", "last_1", "(strategy.r=4, strategy.last_n=2)"),
    ],
)
def test_options_of_a_strategy_go_with_it(
    override: str, strategy: str, left_out: str, file: Path
) -> None:
    config, (note,) = load_with_notes(file, override)
    assert config.strategy == parse_strategy(strategy)
    assert note.endswith(left_out)


@pytest.mark.parametrize(
    "override",
    ["data.source=nyu-mll/glue", "model.checkpoint=google-bert/bert-base-uncased", "strategy.r=8"],
)
def test_an_override_that_replaces_nothing_drops_nothing(override: str, file: Path) -> None:
    config, notes = load_with_notes(file, override)
    assert (config.data.name, config.model.revision, config.strategy.last_n) == ("sst2", "abc", 2)
    assert notes == []


def test_keys_of_a_file_without_a_source_belong_to_the_one_of_the_command_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "run.yaml").write_text("data: {test_split: validation}\nstrategy: {n: 2}\n")
    overrides = ("data.source=a/b", "strategy.name=last_n")
    config, notes = load_with_notes(tmp_path / "run.yaml", *overrides)
    assert (config.data.test_split, config.strategy.n, notes) == ("validation", 2, [])


def test_every_key_that_can_be_dropped_exists() -> None:
    known = dict(flatten(RunConfig().to_dict()))
    names = {name for pair in DESCRIBED_BY.items() for name in (pair[0], *pair[1])}
    assert len(names) > 20
    assert names <= known.keys()
