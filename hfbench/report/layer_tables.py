"""What layers cost: for the terminal, Markdown and JSON. Pure functions, no large library."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from hfbench.layers import BlockCost, BlockLayer, LayerCost
from hfbench.report.tables import Style, bullet, heading_line, layout_table, paragraph, wrap_label

FORMULA_COLUMNS = 20
_NO_BREAK_SPACE = "\u00a0"


def format_layers(
    layers: Sequence[LayerCost],
    blocks: Sequence[BlockCost],
    style: Style | Literal["json"] = "table",
) -> str:
    """One table of single layers, if there are any, and one for each block."""
    if style == "json":
        values = {
            "layers": [_layer_values(cost) for cost in layers],
            "blocks": [_block_values(cost) for cost in blocks],
        }
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    sections = [_layers_section(layers, style)] if layers else []
    sections += [_block_section(cost, style) for cost in blocks]
    return "\n".join(sections)


def _layers_section(layers: Sequence[LayerCost], style: Style) -> str:
    headings = [
        "layer",
        "parameters\nby formula",
        "parameters",
        "trainable",
        "multiply-adds",
        "output",
    ]
    rows = [
        [
            wrap_label(cost.layer.label, columns=24) if style == "table" else cost.layer.label,
            _formula_cell(str(cost.layer.kind.parameters), style),
            f"{cost.parameters:,}",
            f"{cost.trainable:,}",
            f"{cost.multiply_adds:,}",
            _shape(cost.output_shape),
        ]
        for cost in layers
    ]
    note = (
        "Of one sample. Parameters are counted on the real layer, and multiply-adds are half of "
        "the FLOPs that PyTorch counts in it: matrix products and convolutions, padding included, "
        "biases left out. Both equal their formulas. Layers that work number by number have 0."
    )
    kinds = {cost.layer.kind.name: cost.layer.kind for cost in layers}
    items = [
        bullet(f"{name}: {kind.multiply_adds} ({kind.work})", style) for name, kind in kinds.items()
    ]
    parts = [heading_line("Layers compared", style), layout_table(headings, rows, style)]
    return "\n\n".join([*parts, paragraph(note, style), "\n".join(items)]) + "\n"


def _block_section(cost: BlockCost, style: Style) -> str:
    headings = ["layer", "kind", "parameters", "multiply-adds", "output"]
    rows = [
        [
            layer.name,
            layer.kind,
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
            "-" if layer.output_shape is None else _shape(layer.output_shape),
        ]
        for layer in cost.layers
    ]
    total = [
        "sum",
        "",
        f"{cost.parameters:,}",
        f"{cost.multiply_adds:,}",
        _shape(cost.output_shape),
    ]
    title = f"Block 0 of {cost.depth} of {cost.checkpoint}"
    parts = [
        heading_line(title, style),
        layout_table(headings, [*rows, total], style, last_is_sum=True),
    ]
    parts += [paragraph(note, style) for note in _block_notes(cost)]
    return "\n\n".join(parts) + "\n"


def _block_notes(cost: BlockCost) -> Iterator[str]:
    blocks = "every block has as many parameters" if cost.alike else "the blocks differ"
    yield (
        f"One sample: {cost.input_name}, {_shape(cost.input_shape)}; {blocks}. "
        f"Configuration: {cost.source}"
    )
    yield (
        "Multiply-adds: half of the FLOPs that PyTorch counts in matrix products and convolutions. "
        "Layers that work number by number have 0."
    )
    own = ", ".join(layer.name or layer.kind for layer in cost.layers if _is_own_work(layer))
    if own:
        yield (
            f"{own}: its own work, without the layers inside it; in attention the products "
            "queries × keys and weights × values."
        )
    if any(layer.output_shape is None for layer in cost.layers):
        yield "Without an output: the layer around it reads its weights and does its work."


def _is_own_work(layer: BlockLayer) -> bool:
    return layer.is_container and layer.multiply_adds > 0


def _layer_values(cost: LayerCost) -> dict[str, Any]:
    kind = cost.layer.kind
    return {
        "layer": cost.layer.label,
        "kind": kind.name,
        "sizes": dict(cost.layer.sizes),
        "parameter_formula": str(kind.parameters),
        "parameters": cost.parameters,
        "trainable_parameters": cost.trainable,
        "multiply_add_formula": str(kind.multiply_adds),
        "multiply_adds": cost.multiply_adds,
        "output_shape": list(cost.output_shape),
    }


def _block_values(cost: BlockCost) -> dict[str, Any]:
    return {
        "checkpoint": cost.checkpoint,
        "block": 0,
        "depth": cost.depth,
        "blocks_alike": cost.alike,
        "input": {"name": cost.input_name, "shape": list(cost.input_shape)},
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
                "output_shape": None if layer.output_shape is None else list(layer.output_shape),
            }
            for layer in cost.layers
        ],
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "output_shape": list(cost.output_shape),
    }


def _formula_cell(text: str, style: Style) -> str:
    """Broken between the terms of a sum in the terminal."""
    if style == "markdown":
        return text
    glued = text.replace(" × ", f"{_NO_BREAK_SPACE}×{_NO_BREAK_SPACE}")
    return textwrap.fill(glued, FORMULA_COLUMNS).replace(_NO_BREAK_SPACE, " ")


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{size:,}" for size in shape)
