"""Text of others (labels, names, notes, reasons) in cards, Markdown, tables, CSV and terminals."""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from card_results import card_result
from markdown_it import MarkdownIt
from markdown_it.token import Token
from result_factory import make_result
from tqdm import tqdm

from hfbench.cli import main
from hfbench.compare import aggregate
from hfbench.report.comparison import format_comparison
from hfbench.report.csv_text import csv_text
from hfbench.report.markup import code_span, escaped, escaped_line, fenced
from hfbench.report.model_card import model_card
from hfbench.report.predictions import format_predictions
from hfbench.report.tables import layout_table
from hfbench.results import RunResult
from hfbench.streams import lasting, write_out
from hfbench.tasks.base import Candidate
from hfbench.terminal_text import visible

HOSTILE = {
    "backtick": "`](http://evil.example) <b>x</b>`",
    "two backticks": "``` \n# heading",
    "pipe": r"a | b \| c \\| d",
    "html": "<script>alert(1)</script><img src=x onerror=y>",
    "link": "[click](http://evil.example) ![i](http://evil.example/i.png)",
    "bare link": "see https://evil.example and www.evil.example or a@evil.example",
    "lines": "one\n\n# heading\n\n- item\n---\nlicense: mit\n---\n",
    "emphasis": "**bold** _soft_ ~~gone~~ $x$",
    "entity": "&lt;b&gt; &#42;",
    "front matter": "---\nlicense: mit\n---",
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m\r\u202ereversed",
    "empty": "",
}


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def rendered(text: str) -> tuple[set[str], str]:
    """What Markdown makes of it: the kinds of its tokens, and the text that is shown."""
    tokens = parsed(text)
    every = [one for token in tokens for one in (token, *(token.children or []))]
    html = {one.content for one in every if one.type.startswith("html")}
    kinds = {one.type for one in every} | {f"html {one}" for one in html}
    shown = "".join(one.content for one in every if one.type in ("text", "code_inline"))
    return kinds, shown


def plain(text: str) -> str:
    return " ".join(visible(text).split())


@pytest.mark.parametrize("kind", HOSTILE)
def test_text_of_others_is_shown_as_it_is(kind: str) -> None:
    text = HOSTILE[kind]
    kinds, shown = rendered(f"It says {escaped(text)}.")
    assert kinds <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}
    assert shown == f"It says {plain(text)}."
    kinds, shown = rendered(f"It says {code_span(text)}.")
    assert {one for one in kinds if one.startswith("html ")} <= {"html <code>", "html </code>"}
    assert not kinds & {"link_open", "image", "heading_open", "em_open", "strong_open"}
    assert shown.replace(" ", "") == f"It says {plain(text)}.".replace(" ", "")


@pytest.mark.parametrize("text", ["- item", "1. item", "# heading", "+ item", "12) item", "==="])
def test_a_line_of_others_begins_nothing(text: str) -> None:
    kinds, shown = rendered(escaped_line(text))
    assert (kinds & {"paragraph_open"}, shown) == ({"paragraph_open"}, text)
    assert not kinds & {"bullet_list_open", "ordered_list_open", "heading_open"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_cell_of_others_stays_one_cell(kind: str) -> None:
    table = layout_table(["label", "n"], [[HOSTILE[kind], "1"]], "markdown")
    tokens = parsed(table)
    cells = [
        t.content
        for t, before in zip(tokens[1:], tokens, strict=False)
        if before.type[0] == "t" and before.type in ("td_open",) and t.type == "inline"
    ]
    assert len(cells) == 2
    assert rendered(table)[0].isdisjoint({"link_open", "image", "heading_open", "html_inline"})


def test_a_fence_is_longer_than_what_is_inside() -> None:
    kinds, _ = rendered(fenced("a: |\n  ````\n  # no heading\n", "yaml"))
    assert kinds == {"fence"}


def hostile_result(text: str) -> RunResult:
    result = card_result("model.checkpoint=bundled/bert-tiny", "data.source=bundled/python-docs")
    config = result.config | {
        "data": result.config["data"] | {"source": f"/data/{text.replace('/', '')}.csv"},
        "model": result.config["model"] | {"checkpoint": f"/models/{text.replace('/', '')}"},
        "strategy": result.config["strategy"] | {"freeze": [text]},
    }
    data = result.data | {
        "labels": [text, f"{text} too"],
        "notes": [f"the label {text} is rare", text or "empty"],
        "columns": {"text": text, "label": "label"},
    }
    return dataclasses.replace(
        result, config=config, data=data, hardware=result.hardware | {"cpu": text}
    )


@pytest.mark.parametrize("contents", ["model", "adapter"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_card_has_no_markup_of_others(kind: str, contents: str) -> None:
    def card(text: str) -> str:
        return model_card(
            hostile_result(text),
            repo_id="alice/reviews",
            contents="adapter" if contents == "adapter" else "model",
            local=(),
            revision="a`b",
        )

    harmless, found = card("harmless"), card(HOSTILE[kind])
    head, body = found.split("\n---\n", 1)
    assert (
        yaml.safe_load(head.removeprefix("---\n")).keys()
        == yaml.safe_load(harmless.split("\n---\n", 1)[0].removeprefix("---\n")).keys()
    )
    expected = rendered(harmless.split("\n---\n", 1)[1])[0]
    assert rendered(body)[0] - expected <= {
        "text_special",
        "html_inline",
        "html <code>",
        "html </code>",
        "softbreak",
    }
    assert count(body, "heading_open") == count(harmless.split("\n---\n", 1)[1], "heading_open")
    assert count(body, "link_open") == count(harmless.split("\n---\n", 1)[1], "link_open")
    assert visible(found) == found


def count(text: str, kind: str) -> int:
    return sum(one.type == kind for t in parsed(text) for one in (t, *(t.children or [])))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_comparison_has_no_markup_of_others(kind: str) -> None:
    text = HOSTILE[kind]
    failed = make_result(status="failed", reason=f"OSError: {text}", checkpoint=text, dataset=text)
    kinds, _ = rendered(format_comparison(aggregate([failed]), "markdown"))
    assert kinds.isdisjoint({"link_open", "image", "html_inline", "html_block", "strong_open"})
    table = format_comparison(aggregate([failed]), "table")
    assert "\x1b" not in "".join(layout_table(["a"], [[text]], "table"))
    assert "failed" in table


# ---- terminals


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """From here on output and errors go to a terminal as a command's do; reads what was sent."""
    sent = Terminal()
    first = io.TextIOWrapper(sent, encoding="utf-8")
    stream = lasting(first)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)

    def read() -> str:
        assert not first.closed  # it is kept, as Python keeps its own
        stream.flush()
        return sent.getvalue().decode()

    return read


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jlabel", "\\u001b[2Jlabel"),
        ("a\rb", "a\\u000db"),
        ("\x9b31m", "\\u009b31m"),
        ("\x07\x08\x7f", "\\u0007\\u0008\\u007f"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("\u2066x\u2069 \u2028", "\\u2066x\\u2069 \\u2028"),
        ("ä × \t שלום مرحبا 😀\n", "ä × \t שלום مرحبا 😀\n"),
    ],
)
def test_no_terminal_obeys_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    terminal = on_terminal(monkeypatch)
    print(f"note: {text}")
    assert terminal() == f"note: {shown}\n"


def test_an_error_with_escapes_reaches_no_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = on_terminal(monkeypatch)
    assert main(["compare", str(tmp_path / "x\x1b[31my")]) == 2
    assert "\x1b" not in terminal()
    assert "does not exist" in terminal()


def test_bars_move_on_a_terminal_and_their_titles_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with tqdm(total=2, desc="check \x1b[31mtrain", file=sys.stderr) as outer:
        with tqdm(total=1, file=sys.stderr, leave=False) as inner:
            inner.update()
        outer.update()
    sent = terminal()
    assert "\rcheck \\u001b[31mtrain" in sent
    assert "\x1b[A" in sent  # up to the outer bar
    assert sent.replace("\x1b[A", "").count("\x1b") == 0


def test_widths_are_those_of_what_is_shown() -> None:
    lines = layout_table(["label", "n"], [["a\x1b[1m", "1"], ["b", "2"]], "table").split("\n")
    assert {len(line) for line in lines} == {len("a\\u001b[1m  1")}


@pytest.mark.parametrize("text", ["a\x1b[1m", "\x9b", "a\u202eb"])
def test_json_on_a_terminal_is_the_same_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    terminal = on_terminal(monkeypatch)
    write_out(json.dumps({"label": text}, ensure_ascii=False) + "\n", for_programs=True)
    assert json.loads(terminal()) == {"label": text}
    assert visible(terminal()) == terminal()


def test_what_programs_read_leaves_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.BytesIO()
    first = io.TextIOWrapper(sent, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", lasting(first))
    write_out("input\na\x1b[1m\rb\n", for_programs=True)
    assert sent.getvalue() == b"input\na\x1b[1m\rb\n"


# ---- spreadsheets


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", '=cmd|" /C calc"!A0']
)
def test_a_formula_is_quoted_on_request(text: str) -> None:
    rows = [["input", "label"], [text, -0.5]]
    (_, safe) = csv.reader(io.StringIO(csv_text(rows, excel_safe=True), newline=""))
    (_, bare) = csv.reader(io.StringIO(csv_text(rows), newline=""))
    assert (safe, bare) == ([f"'{text}", "-0.5"], [text, "-0.5"])


def test_predictions_are_safe_for_spreadsheets_on_request() -> None:
    answers = [[Candidate("=HYPERLINK(1)", 0.75)]]
    about = {"names": ["@x"], "answers": answers, "style": "csv"}
    arguments = {"answer_name": "label", "about": {}}
    text = format_predictions(*about.values(), **arguments, excel_safe=True)  # type: ignore[arg-type]
    assert text == "input,label,probability\n'@x,'=HYPERLINK(1),0.75\n"


@pytest.mark.parametrize("style", ["table", "json", "markdown"])
def test_excel_safe_is_for_csv(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "bert-base-uncased", "--format", style, "--excel-safe"]) == 2
    assert f"--excel-safe is for --format csv; this is {style}" in capsys.readouterr().err
