"""``hfbench recommend``: three criteria, an order that says why, and what to relax."""

import json
import math
import subprocess
import sys
import typing
from argparse import ArgumentTypeError
from collections.abc import Iterator
from typing import Any

import pytest
from snapshot_check import assert_snapshot

from hfbench.cli import main
from hfbench.models import heads
from hfbench.models.catalogue import CATALOGUE
from hfbench.models.languages import COMMON_CRAWL_100, WIKIPEDIA_104, XLSR_53
from hfbench.models.pretraining import PRETRAINING, TaskName
from hfbench.recommend import Limits, count_sizes, recommend
from hfbench.recommend_command import parse_parameters

TEXT, IMAGE, AUDIO = "text_classification", "image_classification", "audio_classification"
# Attention, the two layers of the feed-forward part, two norms.
BASE_BLOCK = 4 * (768 * 768 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768 + 2 * 2 * 768
LARGE_BLOCK = 4 * (1024 * 1024 + 1024) + 1024 * 4096 + 4096 + 4096 * 1024 + 1024 + 2 * 2 * 1024


@pytest.fixture(scope="module", autouse=True)
def shared_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Counted once for all tests of this module, in a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def printed(capsys: pytest.CaptureFixture[str], task: str, *options: str) -> str:
    assert main(["recommend", "--task", task, *options]) == 0
    return capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], task: str, *options: str) -> list[dict[str, Any]]:
    """All checkpoints that match, as JSON."""
    text = printed(capsys, task, *options, "--format", "json", "--limit", "99")
    checkpoints: list[dict[str, Any]] = json.loads(text)["checkpoints"]
    return checkpoints


def names(checkpoints: list[dict[str, Any]]) -> list[str]:
    return [one["checkpoint"].rpartition("/")[2] for one in checkpoints]


def refusal(capsys: pytest.CaptureFixture[str], task: str, *options: str) -> str:
    assert main(["recommend", "--task", task, *options]) == 2
    return capsys.readouterr().err


def test_every_checkpoint_of_the_catalogue_has_its_facts() -> None:
    assert list(PRETRAINING) == list(CATALOGUE)
    assert typing.get_args(TaskName) == tuple(heads.TASKS)
    for name, facts in PRETRAINING.items():
        assert ("multilingual" in name or "xlm" in name or "xlsr" in name) == facts.multilingual
        assert ("960h" in name) == ("LibriSpeech-960h" in facts.text)
    lists = (WIKIPEDIA_104, COMMON_CRAWL_100, XLSR_53)
    assert [len(set(names)) for names in lists] == [104, 100, 52]
    assert all("\n" not in name and "Swahili" in names for names in lists for name in names)


def test_sizes_are_exact_and_shared_blocks_count_each_time() -> None:
    sizes = count_sizes("text_classification", 2)
    bert = sizes["google-bert/bert-base-uncased"]
    assert (bert.parameters, bert.weight_bytes) == (109_483_778, 4 * 109_483_778)
    assert (bert.blocks, bert.own_blocks, bert.hidden_size) == (12, 12, 768)
    assert bert.block_parameters == 12 * BASE_BLOCK
    albert = sizes["albert/albert-base-v2"]
    assert (albert.parameters, albert.blocks, albert.own_blocks) == (11_685_122, 12, 1)
    assert albert.block_parameters == 12 * BASE_BLOCK
    gpt2 = sizes["openai-community/gpt2-xl"]
    assert (gpt2.blocks, gpt2.hidden_size) == (48, 1600)


def test_the_order_of_images_is_block_parameters_times_data_then_not_fine_tuned() -> None:
    found = recommend("image_classification", 10, Limits())
    # 14 million images: 24 large or 12 base blocks; 1.28 million: base, small, tiny.
    assert [one.name.rpartition("/")[2] for one in found.candidates] == [
        "vit-large-patch16-224",
        "vit-base-patch16-224-in21k",
        "vit-base-patch16-224",
        "deit-base-patch16-224",
        "deit-small-patch16-224",
        "deit-tiny-patch16-224",
    ]
    assert found.decided_by == ("scale", "fine-tuned", "scale", "scale", "scale")
    assert found.candidates[0].scale == 24 * LARGE_BLOCK * 14
    assert found.candidates[3].scale == 12 * BASE_BLOCK * 1.28
    # Its head has 10 labels instead of 1,000.
    assert found.candidates[3].size.parameters == 86_567_656 - 990 * (768 + 1)


def test_each_rule_of_the_order_decides_where_it_should(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = recommend("text_classification", 2, Limits())
    order = [one.name.rpartition("/")[2] for one in found.candidates]
    behind = dict(zip(order[1:], found.decided_by, strict=True))
    assert order[:4] == ["deberta-v3-large", "roberta-large", "deberta-v3-base", "roberta-base"]
    assert behind["roberta-large"] == behind["roberta-base"] == "positions"  # masked ones only
    assert behind["electra-base-discriminator"] == "scale"  # 158 against 160 GB
    assert order.index("deberta-v3-base") < order.index("bert-large-uncased")  # 10 times the data
    assert order.index("bert-base-cased") + 1 == order.index("bert-base-uncased")
    assert behind["bert-base-uncased"] == "parameters"  # a larger vocabulary
    assert behind["albert-base-v2"] == "published"
    assert behind["xlm-roberta-large"] == "languages"
    assert behind["gpt2-xl"] == "task"
    assert order[-1] == "distilgpt2"
    audio = recommend("audio_classification", 2, Limits("960h"))
    assert audio.decided_by == ("scale",)
    why = {one["checkpoint"]: one["why_here"] for one in listed(capsys, AUDIO)}
    assert "no different from facebook/hubert-base-ls960" in why["facebook/wav2vec2-base"]
    assert why["facebook/wav2vec2-base-960h"].endswith("but fine-tuned already")


def test_words_of_the_pretraining_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert names(listed(capsys, TEXT, "--pretrained-on", "multilingual")) == [
        "xlm-roberta-large",
        "xlm-roberta-base",
        "bert-base-multilingual-cased",
        "distilbert-base-multilingual-cased",
    ]
    assert names(listed(capsys, TEXT, "--pretrained-on", "Chinese"))[0] == "bert-base-chinese"
    assert names(listed(capsys, TEXT, "--pretrained-on", "hausa")) == [
        "xlm-roberta-large",
        "xlm-roberta-base",
    ]
    assert names(listed(capsys, IMAGE, "--pretrained-on", "imagenet-21k")) == [
        "vit-large-patch16-224",
        "vit-base-patch16-224-in21k",
        "vit-base-patch16-224",
    ]
    assert names(listed(capsys, AUDIO, "--pretrained-on", "speech swahili")) == [
        "wav2vec2-large-xlsr-53"
    ]
    assert len(listed(capsys, AUDIO, "--pretrained-on", "speech")) == 8  # all but AudioSet's
    assert names(listed(capsys, AUDIO, "--pretrained-on", "sounds")) == [
        "ast-finetuned-audioset-10-10-0.4593"
    ]


def test_the_limit_of_parameters_counts_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    at_most = listed(capsys, TEXT, "--max-parameters", "109,483,778")
    assert "bert-base-uncased" in names(at_most)
    assert all(one["parameters"] <= 109_483_778 for one in at_most)
    assert "bert-base-uncased" not in names(listed(capsys, TEXT, "--max-parameters", "109483777"))
    options = ("--max-parameters", "109483778", "--num-labels", "3")
    assert "bert-base-uncased" not in names(listed(capsys, TEXT, *options))


def test_training_must_fit_into_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    small = (IMAGE, "--max-parameters", "22M", "--batch-size", "4")
    both = listed(capsys, *small, "--memory", "2GiB")
    assert names(both) == ["deit-small-patch16-224", "deit-tiny-patch16-224"]
    plan = ["plan", "deit-small-patch16-224", "--num-labels", "2", "--batch-size", "4"]
    assert main([*plan, "--strategies", "full", "--format", "json"]) == 0
    planned = json.loads(capsys.readouterr().out)["strategies"][0]["memory_bytes"]["peak"]
    assert both[0]["training_peak_bytes"] == planned
    between = f"{planned / 2**20 - 1:.0f}MiB"
    assert names(listed(capsys, *small, "--memory", between)) == ["deit-tiny-patch16-224"]
    frozen = listed(capsys, *small, "--memory", between, "--strategy", "head")
    assert names(frozen) == names(both)
    message = refusal(capsys, *small, "--memory", "1MiB")
    tiny = math.ceil(both[1]["training_peak_bytes"] / 2**20)
    assert "2 of these have at most 22,000,000 parameters; 0 of these train (full" in message
    assert f"Raise --memory: facebook/deit-tiny-patch16-224 needs {tiny}MiB" in message
    enough = listed(capsys, *small, "--memory", f"{tiny}MiB")
    assert names(enough) == ["deit-tiny-patch16-224"]


def test_a_language_model_must_fit_too(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--max-parameters", "100M", "--batch-size", "1", "--max-length", "8")
    (one,) = listed(capsys, "causal_lm", *options, "--memory", "8GiB")
    assert one["checkpoint"] == "distilbert/distilgpt2"
    assert one["training_peak_bytes"] > 16 * 81_912_576  # weights, gradients, two moments
    command = "hfbench compare --config FILE --strategies scratch,last_2,lora,full "
    assert command in printed(capsys, "causal_lm", "--max-parameters", "100M")


def test_a_strategy_that_does_not_suit_leaves_out_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--max-parameters", "14M", "--memory", "4GiB", "--strategy", "last_2"]
    text = printed(capsys, TEXT, *options, "--batch-size", "1", "--max-length", "8")
    text = " ".join(text.split())
    assert "2 of these have at most 14,000,000 parameters; 1 of these train (last_2" in text
    assert "planned: albert/albert-base-v2: strategy 'last_2' asks for" in text


@pytest.mark.parametrize(
    ("task", "options", "messages"),
    [
        (
            TEXT,
            ["--max-parameters", "10M"],
            [
                f"of {len(CATALOGUE)} checkpoints 23 are for text_classification",
                "0 of these have at most 10,000,000 parameters",
                "Raise --max-parameters: albert/albert-base-v2 has 11,685,122",
            ],
        ),
        (
            TEXT,
            ["--pretrained-on", "chinese", "--max-parameters", "50M"],
            ["5 of these are pre-trained on 'chinese'", "bert-base-chinese has 102,269,186"],
        ),
        (
            IMAGE,
            ["--pretrained-on", "imagenet-22k"],
            ["'imagenet-22k' occurs in none; near it: imagenet-21k", "ImageNet-21k; ImageNet-1k"],
        ),
        (
            AUDIO,
            ["--pretrained-on", "AudioSet Libri-Light"],
            ["Name fewer words in --pretrained-on"],
        ),
        (TEXT, ["--pretrained-on", "{0}"], ["are pre-trained on '{0}'"]),
        (TEXT, ["--strategy", "lora"], ["--strategy belongs to --memory SIZE"]),
        (TEXT, ["--max-length", "64"], ["--max-length belongs to --memory SIZE"]),
        (TEXT, ["--limit", "0"], ["--limit 0 must be a number >= 1"]),
        (TEXT, ["--num-labels", "0"], ["num_labels=0 must be a number >= 1"]),
        ("causal_lm", ["--num-labels", "3"], ["belongs to classification, not to causal_lm"]),
        (IMAGE, ["--memory", "8GiB", "--strategy", "lats_2"], ["lats_2"]),
        (IMAGE, ["--memory", "8GiB", "--batch-size", "0"], ["batch_size=0"]),
    ],
)
def test_what_matches_nothing_or_makes_no_sense_is_refused(
    task: str, options: list[str], messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(capsys, task, *options)
    for message in messages:
        assert message in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "poetry"], "choose from 'text_classification'"),
        ([], "--task"),
        (["--task", TEXT, "--max-parameters", "lots"], "'lots' is not a number of parameters"),
        (["--task", TEXT, "--memory", "8"], "'8' is not a size like 8GiB"),
    ],
)
def test_options_that_cannot_be_read_are_named(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["recommend", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_numbers_of_parameters_are_read() -> None:
    assert parse_parameters("120M") == 120_000_000
    assert parse_parameters("1.1b") == 1_100_000_000
    assert parse_parameters("66 k") == 66_000
    assert parse_parameters("109,483,778") == 109_483_778
    for text in ("", "M", "12G", "-3M", "1e6"):
        with pytest.raises(ArgumentTypeError):
            parse_parameters(text)


def test_a_repeated_question_does_not_load_torch(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--task", IMAGE, "--max-parameters", "90M", "--pretrained-on", "imagenet"]
    first = printed(capsys, *options[1:])
    code = (
        "import sys; from hfbench.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'timm', 'datasets'} & set(sys.modules);"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "recommend", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == first


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_the_recommendation_looks_as_before(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--num-labels", "12", "--max-parameters", "120M", "--pretrained-on", "speech"]
    text = printed(capsys, AUDIO, *options, "--limit", "3", "--format", style)
    assert_snapshot(text, f"recommend_{style}.txt")
    if style == "table":
        assert max(map(len, text.splitlines())) <= 100
    albert = printed(capsys, TEXT, "--max-parameters", "12M", "--format", style)
    assert "head,last_1,lora" in albert  # one block serves all of ALBERT's
    assert "one block's weights serve all blocks" in " ".join(albert.split())


def test_the_widest_table_stays_within_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, TEXT, "--limit", "99")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("- ") for line in lines) == 23
    assert sum("Why here: " in line for line in lines) == 23


def test_help_names_the_criteria(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["recommend", "--help"])
    text = capsys.readouterr().out
    for word in ("--max-parameters", "--memory", "--pretrained-on", "--strategy"):
        assert word in text
