"""Outputs that cannot print, are closed or full, and paths where nothing can be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import overrides

from hfbench.answers import cached
from hfbench.cli import main
from hfbench.spelling import COMPARE, COUNTS, spelled

RECIPES = Path(__file__).parents[1] / "recipes"
DEMO = str(RECIPES / "configs/demo_text.yaml")
TEXT = str(RECIPES / "text_classification.py")
PARAMS = ["-m", "hfbench", "params", "bundled/bert-tiny", "--strategies", "full"]
HELP = ["-m", "hfbench", "compare", "--help"]


def python(arguments: list[str], redirection: str = "", **environment: str) -> "Done":
    """Python with these arguments in a shell, which closes and redirects what it inherits."""
    return subprocess.run(
        ["bash", "-c", f'"$0" "$@" {redirection}', sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        timeout=240,
    )


Done = subprocess.CompletedProcess[bytes]
ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
WINDOWS = {"PYTHONIOENCODING": "cp437"}


@pytest.mark.parametrize("environment", [ASCII, C_LOCALE, WINDOWS])
@pytest.mark.parametrize("arguments", [PARAMS, [*PARAMS, "--format", "json"], HELP])
def test_every_output_prints_every_report(
    arguments: list[str], environment: dict[str, str]
) -> None:
    done = python(arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert b"Traceback" not in done.stderr


def test_what_an_output_lacks_is_written_in_plain_letters() -> None:
    code = """
    from hfbench.streams import make_streams_last
    make_streams_last()
    print("2 × 3 ± 1 … é 日 \\udcff")
    """
    done = python(["-c", "\n".join(line.strip() for line in code.splitlines())], **ASCII)
    assert done.stdout == b"2 x 3 +- 1 ... \\xe9 \\u65e5 \\udcff\n"


def test_programs_get_utf_8_from_any_output() -> None:
    code = """
    from hfbench.streams import make_streams_last, write_out
    make_streams_last()
    write_out("2 × 日", for_programs=True)
    """
    done = python(["-c", "\n".join(line.strip() for line in code.splitlines())], **ASCII)
    assert done.stdout.decode("utf-8") == "2 × 日"


@pytest.mark.parametrize(
    "redirection", ["| true; exit ${PIPESTATUS[0]}", ">&-", "<&-", "2>&-", "<&- >&- 2>&-"]
)
@pytest.mark.parametrize("arguments", [PARAMS, HELP])
def test_streams_may_be_closed(arguments: list[str], redirection: str) -> None:
    done = python(arguments, redirection)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_an_output_that_is_full_is_named() -> None:
    done = python(PARAMS, ">/dev/full")
    assert done.returncode == 2
    assert b"no space left on the disk" in done.stderr
    assert b"<stdout>" in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.slow
def test_a_run_whose_output_cannot_print_and_is_closed_goes_on(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    arguments = [TEXT, *overrides(tiny_bert, texts, tmp_path / "run", "strategy=head")]
    done = python(arguments, "| head -1; exit ${PIPESTATUS[0]}", **ASCII)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert result["status"] == "succeeded"


def test_a_limit_on_file_sizes_is_a_full_disk(tiny_bert: Path, texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = overrides(tiny_bert, texts, folder, "strategy=full", "training.epochs=1")
    command = ["bash", "-c", 'ulimit -f 50 && "$0" "$@"', sys.executable, TEXT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "a file would become larger than is allowed here" in done.stderr
    assert str(folder) in done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a_file"
    path.write_text("x")
    return path


@pytest.mark.parametrize("inside", ["", "folder"])
def test_a_cache_that_cannot_be_kept_costs_one_line(
    inside: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / inside))
    for question in ("one", "two", "two"):
        answer = cached({"question": question}, lambda: 7, to_json=int, from_json=int)
        assert answer == 7
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "answers are not kept" in error
    assert str(file) in error


def test_a_library_folder_that_is_a_file_is_named_where_it_is_needed(file: Path) -> None:
    """The hub's client looks for its token there."""
    done = python(["-m", "hfbench", "params", "nobody/nothing"], HF_HOME=str(file))
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"HF_HOME" in done.stderr
    assert str(file).encode() in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["params", "bundled/bert-tiny", "--plot", "{}.png"], "file"),
        (["predict", "/nowhere", "a text", "--output", "{}.csv"], "file"),
        (["compare", "--config", DEMO, "--output", "{}"], "folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_known_before_the_work(
    arguments: list[str],
    kind: str,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    option = arguments[-2]

    def message(place: str) -> str:
        assert main([*arguments[:-1], place]) == 2
        error = capsys.readouterr().err
        assert f"{option} {place!r}" in error
        return error

    below = arguments[-1].format(file / "place")
    assert f"cannot be made: {str(file)!r} is a file" in message(below)
    other = tmp_path / arguments[-1].format("other")
    if kind == "file":
        other.mkdir()
        assert "is a folder: give a file" in message(str(other))
    else:
        other.write_text("x")
        assert "is a file: give a folder" in message(str(other))


def test_messages_name_keys_as_the_command_spells_them() -> None:
    assert spelled("choose another output_dir or", COMPARE) == "choose another --output or"
    assert spelled("output_dir='a' cannot", COMPARE) == "--output: 'a' cannot"
    assert spelled("strategy.r=0 must", COMPARE) == "--strategies: r=0 must"
    assert spelled("strategy.name='x' is", COUNTS) == "--strategies 'x' is"
    assert spelled("model.checkpoint='x' is", COUNTS) == "checkpoint 'x' is"
    assert spelled("'runs/output_dir/x' and my_seed=1", COMPARE) == (
        "'runs/output_dir/x' and my_seed=1"
    )


def test_compare_says_output_where_a_recipe_says_output_dir(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hfbench.cli import recipe_main

    config = tmp_path / "config.yaml"
    config.write_text(
        f"task: text_classification\nmodel: {{checkpoint: {tiny_bert}}}\n"
        f"data: {{source: {texts}}}\ntraining: {{epochs: 1, learning_rate: 1.0e-3}}\n"
    )
    folder = tmp_path / "runs/head_seed0"
    recipe = ["--config", str(config), "strategy=head", f"output_dir={folder}"]
    assert recipe_main("text_classification", None, recipe) == 0
    compare = ["compare", "--config", str(config), "--output", str(tmp_path / "runs")]
    capsys.readouterr()
    assert recipe_main("text_classification", None, [*recipe, "training.epochs=2"]) == 2
    assert "choose another output_dir" in capsys.readouterr().err
    assert main([*compare, "--strategies", "head", "training.epochs=2"]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert main([*compare, "--strategies", "lora:r=0"]) == 2
    assert "--strategies: r=0 must be" in capsys.readouterr().err
