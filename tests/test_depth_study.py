"""Depth of networks and of fine-tuning: widths, verdicts and shares computed by hand."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from result_factory import make_parameters, make_result
from snapshot_check import assert_snapshot

from hfbench.compare import Group, aggregate
from hfbench.config import load_config
from hfbench.errors import UserError
from hfbench.network_depth import (
    EQUAL_PARAMETERS,
    EQUAL_WIDTH,
    DepthCurve,
    NetworkRun,
    NetworkStudy,
    Widths,
    layer_parameters,
    widths_for_parameters,
)
from hfbench.report.depth_figures import draw_networks, draw_tuning
from hfbench.report.depth_tables import curve_findings, format_networks, format_tuning
from hfbench.results import load_all
from hfbench.tuning_depth import TuningDepth, depth_strategies

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/depth_study.py"


# -- networks ---------------------------------------------------------------------------------


def test_layers_of_the_textbook_network() -> None:
    # 785 · 256, 257 · 128, 129 · 64, 65 · 10
    counts = layer_parameters((256, 128, 64), inputs=784, outputs=10)
    assert counts == (200_960, 32_896, 8_256, 650)
    assert sum(counts) == 242_762


@pytest.mark.parametrize(
    ("depth", "target", "widths"),
    [
        (1, 1000, ()),  # a network without hidden layer cannot be made larger
        (2, 20, (3,)),  # 4 inputs, 2 outputs, width w: 7 w + 2 = 23; with 2 it were 16
        (2, 19, (2,)),  # 16 and 23 are not equally near to 19
        (2, 9, (1,)),
        # (4 + 1) a + (a + 1) b + (b + 1) 2: widths (3, 3) have 35, (4, 3) have 43, (4, 4) have 50
        (3, 35, (3, 3)),
        (3, 40, (4, 3)),
        (3, 39, (3, 3)),  # 35 and 43 are equally near: the smaller
        (3, 47, (4, 4)),
        (4, 1, (1, 1, 1)),  # smaller is impossible
    ],
)
def test_widths_come_nearest_to_the_target(depth: int, target: int, widths: Widths) -> None:
    assert widths_for_parameters(depth, target, inputs=4, outputs=2) == widths


def run(widths: Widths, seed: int, **measured: float) -> NetworkRun:
    values = {"train_loss": 0.5, "train_accuracy": 0.8, "test_loss": 0.5, "test_accuracy": 0.8}
    return NetworkRun(
        widths=widths,
        regularised=False,
        seed=seed,
        layer_parameters=layer_parameters(widths, inputs=4, outputs=2),
        **(values | {"train_seconds": 1.0 + seed} | measured),
    )


def curve_of(measured: dict[Widths, list[tuple[float, float]]]) -> DepthCurve:
    """Widths -> (train loss, test accuracy) of each seed."""
    runs = [
        run(widths, seed, train_loss=loss, test_accuracy=accuracy)
        for widths, values in measured.items()
        for seed, (loss, accuracy) in enumerate(values)
    ]
    return DepthCurve.of(measured, runs)


def test_verdicts_compare_with_the_best_depth() -> None:
    curve = curve_of(
        {
            (): [(1.0, 0.60), (1.1, 0.62)],  # clearly worse, and on the training data too
            (3,): [(0.20, 0.90), (0.30, 0.92)],
            (3, 3): [(0.10, 0.89), (0.20, 0.91)],  # 0.01 lower, one deviation: 0.0141
            (3, 3, 3): [(0.20, 0.80), (0.30, 0.82)],  # clearly worse, not on the training data
        }
    )
    assert curve.best.depth == 2
    assert [curve.verdict(point) for point in curve.points] == [
        "underfits",
        "best",
        "unclear",
        "overfits",
    ]
    text = " ".join(curve_findings(curve))
    # 0.91 - 0.61 = 0.30; both groups have a standard deviation of 0.02 / sqrt(2)
    assert "Depth helps: test accuracy 0.610 ± 0.014 at depth 1, 0.910 ± 0.014 at depth 2" in text
    assert f"+0.300, {0.3 / (0.02 / math.sqrt(2)):.1f} pooled standard deviations" in text
    assert "Overfits: depth 4 " in text
    assert "Underfits: depth 1 " in text


def test_higher_test_loss_alone_is_overfitting() -> None:
    runs = [
        run((), 0, test_loss=0.50, test_accuracy=0.81),
        run((), 1, test_loss=0.52, test_accuracy=0.79),
        run((3,), 0, test_loss=0.90, test_accuracy=0.80),
        run((3,), 1, test_loss=0.92, test_accuracy=0.79),
    ]
    curve = DepthCurve.of([(), (3,)], runs)
    assert curve.verdict(curve.points[1]) == "overfits"
    assert curve.points[1].gap.mean == pytest.approx(0.91 - 0.5)
    assert curve_findings(curve)[0].startswith("Depth does not help")


def test_single_runs_get_no_verdict() -> None:
    curve = curve_of({(): [(0.5, 0.6)], (3,): [(0.1, 0.9)]})
    assert [curve.verdict(point) for point in curve.points] == [None, "best"]
    assert "nothing is said of chance" in curve_findings(curve)[0]


WIDE: list[Widths] = [(), (8,), (8, 8), (8, 8, 8)]


def made_study() -> NetworkStudy:
    """Test loss falls to depth 3, then rises; regularisation halves the gap."""
    curves = {}
    near = [widths_for_parameters(depth, 202, inputs=4, outputs=2) for depth in range(1, 5)]
    for way, networks in ((EQUAL_WIDTH, WIDE), (EQUAL_PARAMETERS, near)):
        for regularised, factor in ((False, 1.0), (True, 0.5)):
            runs = [
                run(
                    widths,
                    seed,
                    train_loss=train + 0.01 * seed,
                    test_loss=train + factor * gap + 0.01 * seed,
                    train_accuracy=1 - train,
                    test_accuracy=0.95 - train - factor * gap / 4 + 0.001 * seed,
                )
                for widths, train, gap in zip(
                    networks, (0.5, 0.2, 0.1, 0.1), (0.1, 0.2, 0.2, 0.8), strict=True
                )
                for seed in range(3)
            ]
            curves[way, regularised] = DepthCurve.of(networks, runs)
    return NetworkStudy(
        dataset="bundled/digits",
        samples={"train": 200, "test": 697},
        target_parameters=202,
        regularisation="network.dropout=0.1",
        seeds=(0, 1, 2),
        curves=curves,
    )


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_network_tables_look_as_before(style: str) -> None:
    text = format_networks(made_study(), style)  # type: ignore[arg-type]
    assert_snapshot(text, f"depth_networks_{style}.txt")


# -- fine-tuning ------------------------------------------------------------------------------


def tuning(
    accuracies: dict[str, tuple[float, ...]], *, blocks: int = 3, **changes: object
) -> TuningDepth:
    groups: list[Group] = aggregate(
        make_result(
            strategy,
            seed,
            accuracy,
            parameters=make_parameters(trainable=10 * (position + 1), total=100),
            **changes,
        )
        for position, (strategy, values) in enumerate(accuracies.items())
        for seed, accuracy in enumerate(values)
    )
    return TuningDepth.of(groups, blocks=blocks)


def test_strategies_from_head_to_full() -> None:
    labels = [strategy.label for strategy in depth_strategies([0, 1, 3])]
    assert labels == ["head", "last_1", "last_3", "full"]


def test_share_of_the_gain_over_head() -> None:
    # head 0.5, full 0.9: the gain is 0.4; last_1 has 0.1 of it, last_2 0.36, last_3 0.38
    depth = tuning(
        {
            "head": (0.4, 0.6),
            "last_1": (0.5, 0.7),
            "last_2": (0.85, 0.87),
            "last_3": (0.87, 0.89),
            "full": (0.8, 1.0),
        }
    )
    assert list(depth.by_n) == [0, 1, 2, 3]
    assert depth.gain == pytest.approx(0.4)
    shares = [depth.share(group) for group in (*depth.by_n.values(), depth.full)]
    assert shares == pytest.approx([0.0, 0.25, 0.9, 0.95, 1.0])
    reached = depth.reached(0.9)
    assert reached is not None
    assert (reached.n, reached.percent_of_parameters, reached.lost_at) == (2, 30.0, ())
    assert depth.reached(0.99) is None
    # variances 0.02, 0.02, 0.0002, 0.0002, 0.02 with one degree of freedom each
    pooled = math.sqrt(0.0604 / 5)
    assert depth.pooled_std == pytest.approx(pooled)
    assert depth.share_error == pytest.approx(math.sqrt(2 / 2) * pooled / 0.4)
    text = " ".join(format_tuning(depth).split())
    assert "99 % of the gain: reached by no number of last blocks; the most is 95 %" in text


def test_smaller_metric_can_be_better() -> None:
    depth = tuning(
        {"head": (0.5,), "last_1": (0.2,), "full": (0.1,)}, blocks=1, greater_is_better=False
    )
    assert depth.gain == pytest.approx(0.4)
    assert depth.share(depth.by_n[1]) == pytest.approx(0.75)
    assert depth.share_error is None


def test_a_share_that_is_lost_again_is_said() -> None:
    depth = tuning({"head": (0.5,), "last_1": (0.9,), "last_2": (0.6,), "full": (0.9,)}, blocks=2)
    reached = depth.reached(0.9)
    assert reached is not None
    assert (reached.n, reached.lost_at) == (1, (2,))
    assert "below it again with n = 2" in " ".join(format_tuning(depth).split())


def test_no_gain_has_no_shares() -> None:
    depth = tuning({"head": (0.9,), "last_1": (0.8,), "full": (0.9,)})
    assert depth.reached(0.9) is None
    assert [depth.share(group) for group in depth.by_n.values()] == [None, None]
    assert "no gain to share" in " ".join(format_tuning(depth).split())


def test_failed_runs_are_named_and_have_no_share() -> None:
    results = [
        make_result("head", 0, 0.5),
        make_result("last_1", 0, None, status="failed", reason="diverged", test_metrics={}),
        make_result("full", 0, 0.9),
    ]
    depth = TuningDepth.of(aggregate(results), blocks=1)
    assert depth.share(depth.by_n[1]) is None
    text = format_tuning(depth)
    assert "Without a result: last_1, seed 0: diverged." in text
    failed = make_result("full", 0, None, status="failed", reason="x", test_metrics={})
    depth = TuningDepth.of(aggregate([results[0], failed]), blocks=1)
    assert "The gain of full fine-tuning over head is unknown." in format_tuning(depth)


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_fine_tuning_table_looks_as_before(style: str) -> None:
    accuracies = {
        "head": (0.45, 0.44, 0.43),
        "last_1": (0.46, 0.47, 0.48),
        "last_2": (0.52, 0.54, 0.53),
        "last_3": (0.535, 0.53, 0.54),
        "full": (0.53, 0.54, 0.55),
    }
    text = format_tuning(tuning(accuracies), style)  # type: ignore[arg-type]
    assert_snapshot(text, f"depth_tuning_{style}.txt")


def test_images_are_pngs(tmp_path: Path) -> None:
    draw_networks(made_study(), tmp_path / "new" / "networks.png")
    one = tuning({"head": (0.5,), "last_1": (0.6,), "full": (0.9,)})
    draw_tuning([one, one], tmp_path / "tuning.png")
    for name in ("new/networks.png", "tuning.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            assert image.size[0] == 864  # two panels of 3.6 inches at 120 dots per inch


# -- training ---------------------------------------------------------------------------------


def tiny_config(*overrides: str):  # type: ignore[no-untyped-def]
    settings = ("data.max_train_samples=40", "data.max_eval_samples=30", "training.epochs=2")
    path = ROOT / "recipes/configs/depth_study.yaml"
    return load_config(path, [*settings, *overrides], task="mnist_mlp")


def test_networks_are_trained_once_and_kept(tmp_path: Path) -> None:
    from hfbench.depth_training import study_networks

    first = study_networks(tiny_config(), depths=(1, 2, 4), seeds=(0, 1), folder=tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    # depth 1 and the reference, depth 4, are the same both ways: 4 networks, not 6
    assert len(files) == 4 * 2 * 2
    assert first.target_parameters == 65 * 64 + 2 * 65 * 64 + 65 * 10
    points = first.curves[EQUAL_WIDTH, False].points
    assert [point.parameters for point in points] == [650, 65 * 64 + 650, first.target_parameters]
    assert [point.widths for point in first.curves[EQUAL_PARAMETERS, True].points] == [
        (),
        (175,),
        (64, 64, 64),
    ]
    again = study_networks(tiny_config(), depths=(1, 2, 4), seeds=(0, 1), folder=tmp_path)
    assert again == first
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    next(iter(files)).write_text("{}")
    with pytest.raises(UserError, match="holds no run"):
        study_networks(tiny_config(), depths=(1, 2, 4), seeds=(0, 1), folder=tmp_path)


def test_measures_are_those_of_the_last_epoch(tmp_path: Path) -> None:
    """Depth 1 by hand: the same weights, order and Adam steps, without the loop."""
    import torch

    from hfbench.depth_training import study_networks
    from hfbench.tasks.mnist_mlp import MnistMlp
    from hfbench.training.batching import epoch_batches

    config = tiny_config("training.batch_size=16", "training.learning_rate=0.05")
    found = study_networks(config, depths=(1,), seeds=(3,), folder=tmp_path)
    data = MnistMlp(config).prepare_data()
    train, test = (
        split.read_batch(range(len(split)), torch.device("cpu"))
        for split in (data.train, data.test)
    )
    torch.manual_seed(3)
    layer = torch.nn.Linear(64, 10)
    adam = torch.optim.Adam(layer.parameters(), lr=0.05)
    for epoch in range(2):
        for rows in epoch_batches(40, 16, seed=3, epoch=epoch):
            logits = layer(train["pixel_values"][rows].flatten(1))
            adam.zero_grad()
            torch.nn.functional.cross_entropy(logits, train["labels"][rows]).backward()
            adam.step()
    point = found.curves[EQUAL_WIDTH, False].points[0]
    with torch.no_grad():
        logits = layer(test["pixel_values"].flatten(1))
        loss = torch.nn.functional.cross_entropy(logits, test["labels"]).item()
    assert point.test_loss.mean == pytest.approx(loss, rel=1e-5)
    assert point.test_accuracy.mean == (logits.argmax(1) == test["labels"]).double().mean().item()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.widths=[64,32]", "have one width"),
        ("network.kind=cnn", "needs an mlp"),
        ("network.dropout=0", "no regularisation to compare"),
    ],
)
def test_references_that_cannot_be_studied(override: str, message: str, tmp_path: Path) -> None:
    from hfbench.depth_training import study_networks

    with pytest.raises(UserError, match=message):
        study_networks(tiny_config(override), depths=(1,), seeds=(0,), folder=tmp_path)


def test_recipe_prints_tables_and_draws(tmp_path: Path) -> None:
    command = [
        *(sys.executable, str(RECIPE), "--quick", "--part", "networks", "--seeds", "0"),
        *("--format", "markdown", "--output", str(tmp_path), "training.epochs=1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Quick: ")
    assert "| equal parameters | 4 | 3 × 64 | 3 × 4,160 + 650 | 13,130 |" in done.stdout
    assert (tmp_path / "networks.png").is_file()


def test_recipe_fine_tunes_every_depth_once(
    tmp_path: Path,
    tiny_bert: Path,
    own_cache: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spec = importlib.util.spec_from_file_location("depth_study", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    data = tmp_path / "texts.jsonl"
    rows = [{"text": f"{('good', 'bad')[i % 2]} cat {i}", "label": str(i % 2)} for i in range(60)]
    data.write_text("\n".join(map(json.dumps, rows)))
    values = {
        "task": "text_classification",
        "model": {"checkpoint": str(tiny_bert)},
        "data": {"source": str(data)},
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(recipe, "CONFIGS", tmp_path)
    monkeypatch.setattr(recipe, "TUNED", ("tiny",))
    output = tmp_path / "study"
    arguments = ["--quick", "--part", "fine-tuning", "--output", str(output)]
    assert recipe.main(arguments) == 0
    first = {result.run_id: result for result in load_all(output)}
    strategies = {result.strategy for result in first.values()}
    assert strategies == {"head", "last_1", "full"}  # 0 and half of 3 blocks, rounded down
    printed = capfd.readouterr()
    assert "(3 blocks)" in " ".join(printed.out.split())
    assert "Parameters of" not in printed.out  # the reports of the runs are in the log
    log = output / "fine_tuning/tiny/log.txt"
    assert log.read_text().count("Parameters of") == 3
    assert "[3/3] head, seed 0" in printed.err  # it goes on from the prefix of last_1
    assert (output / "fine_tuning.png").is_file()
    assert recipe.main(arguments) == 0
    assert {result.run_id: result for result in load_all(output)} == first
    assert capfd.readouterr().out == printed.out
    assert recipe.main([*arguments, "seed=1"]) == 2
    assert "changes part networks" in capfd.readouterr().err
