"""Imports go one way through the layers, and reading results needs no heavy library."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hfbench"

# A module may import its own layer and those below it.
LAYERS = {
    "recipes": 3,
    "hfbench.cli": 3,
    "hfbench.run": 3,
    "hfbench.dry_run": 3,
    "hfbench.preparation": 3,
    "hfbench.first_batch": 2,
    "hfbench.prediction": 3,
    "hfbench.matrix": 3,
    "hfbench.depth_training": 3,
    "hfbench.plan_command": 3,
    "hfbench.recommend_command": 3,
    "hfbench.layers_command": 3,
    "hfbench.doctor_command": 3,
    "hfbench.predict_command": 3,
    "hfbench.plan": 2,
    "hfbench.recommend": 2,
    "hfbench.calibration": 2,
    "hfbench.doctor": 2,
    "hfbench.layer_costs": 2,
    "hfbench.block_costs": 2,
    "hfbench.cost": 2,
    "hfbench.recorder": 2,
    "hfbench.tasks": 2,
    "hfbench.params": 2,
    "hfbench.strategies": 2,
    "hfbench.adapters": 2,
    "hfbench.feed_forward": 2,
    "hfbench.parameters": 2,
    "hfbench.training": 2,
    "hfbench.saving": 2,
    "hfbench.trained": 2,
    "hfbench.inference": 2,
    "hfbench.record": 2,
    "hfbench.expectation": 2,
    "hfbench.early_checks": 2,
    "hfbench.report": 2,
    "hfbench.models": 1,
    "hfbench.data": 1,
    "hfbench.hub_access": 1,
    "hfbench.hub": 2,
    "hfbench.verification": 2,
    "hfbench.merging": 2,
    "hfbench.quantization": 2,
    "hfbench.push_command": 3,
    "hfbench.metrics": 1,
    "hfbench.scores": 1,
    "hfbench.error_rates": 1,
    "hfbench.ctc": 1,
    "hfbench.compare": 1,
    "hfbench.variants": 1,
    "hfbench.network_depth": 1,
    "hfbench.tuning_depth": 1,
    "hfbench.provenance": 1,
    "hfbench.repository": 1,
    "hfbench.disk": 0,
    "hfbench.answers": 1,
    "hfbench.manifest": 0,
    "hfbench.choices": 0,
    "hfbench.claim": 1,
    "hfbench.results": 0,
    "hfbench.config": 0,
    "hfbench.strategy_config": 0,
    "hfbench.inheritance": 0,
    "hfbench.network_config": 0,
    "hfbench.status": 0,
    "hfbench.layers": 0,
    "hfbench.conversion": 0,
    "hfbench.errors": 0,
    "hfbench.plain_files": 0,
    "hfbench.plain_json": 0,
    "hfbench.plain_yaml": 0,
    "hfbench.exits": 0,
    "hfbench.interrupts": 0,
    "hfbench.orphans": 0,
    "hfbench.processes": 0,
    "hfbench.rank": 0,
    "hfbench.killed": 2,
    "hfbench.stopping": 2,
    "hfbench.keeping": 2,
    "hfbench.reported": 3,
    "hfbench.scoring": 3,
    "hfbench.smaller_batches": 2,
    "hfbench.quiet": 0,
    "hfbench.spelling": 0,
    "hfbench.streams": 0,
    "hfbench.terminal_text": 0,
    "hfbench.start": 3,
    "hfbench.__main__": 3,
    "hfbench": 0,
}
LIGHT_MODULES = (
    "hfbench.results",
    "hfbench.compare",
    "hfbench.variants",
    "hfbench.report.tables",
    "hfbench.report.comparison",
    "hfbench.report.plots",
    "hfbench.report.parameter_tables",
    "hfbench.report.depth_plot",
    "hfbench.report.depth_tables",
    "hfbench.report.depth_figures",
    "hfbench.network_depth",
    "hfbench.tuning_depth",
    "hfbench.report.model_card",
    "hfbench.params",
    "hfbench.answers",
    "hfbench.models.catalogue",
    "hfbench.models.pretraining",
    "hfbench.models.configuration",
    "hfbench.report.plans",
    "hfbench.plan_command",
    "hfbench.recommend",
    "hfbench.recommend_command",
    "hfbench.report.recommendations",
    "hfbench.layers",
    "hfbench.layers_command",
    "hfbench.doctor_command",
    "hfbench.report.diagnoses",
    "hfbench.report.layer_tables",
    "hfbench.predict_command",
    "hfbench.push_command",
    "hfbench.report.predictions",
    "hfbench.config",
    "hfbench.strategy_config",
    "hfbench.inheritance",
    "hfbench.status",
    "hfbench.errors",
    "hfbench.exits",
    "hfbench.interrupts",
    "hfbench.rank",
    "hfbench.streams",
    "hfbench.start",
    "hfbench.provenance",
    "hfbench.record",
    "hfbench.expectation",
    "hfbench.early_checks",
    "hfbench.matrix",
    "hfbench.cli",
)
HEAVY = ("torch", "numpy", "transformers", "datasets", "matplotlib", "peft", "accelerate")


def test_imports_go_down_the_layers() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 5
    violations = [
        f"{importer} imports {imported}"
        for path in files
        for importer in [_module_name(path)]
        for imported in _own_imports(path)
        if _layer(imported) > _layer(importer)
    ]
    assert violations == []


def test_training_knows_no_task_and_no_strategy() -> None:
    files = sorted((PACKAGE / "training").rglob("*.py"))
    assert files
    forbidden = ("hfbench.strategies", "hfbench.report", "hfbench.hub", "hfbench.data")
    assert [
        f"{path.name} imports {imported}"
        for path in files
        for imported in _own_imports(path)
        if imported.startswith(forbidden)
    ] == []


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_module_loads_no_heavy_library(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} does not exist")
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_loads_peft_and_transformers_models_only_where_it_needs_them() -> None:
    """They take longer to import than a small network to train."""
    heavy = ("peft", "transformers.modeling_utils", "sklearn", "evaluate")
    code = f"import sys, hfbench.run; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _own_imports(path: Path) -> Iterator[str]:
    """Every hfbench module or name imported anywhere in the file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_own(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module and _is_own(node.module):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_own(module: str) -> bool:
    return module.split(".")[0] in ("hfbench", "recipes")


def _layer(module: str) -> int:
    package, *names = module.split(".")
    name = ".".join([package, *names[:1]])
    if name not in LAYERS and package == "hfbench":
        assert not _exists(name), f"{name} has no layer in this test: add it"
    return LAYERS.get(name, LAYERS[package])


def _exists(module: str) -> bool:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
