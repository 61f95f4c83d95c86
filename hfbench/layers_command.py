"""``hfbench layers``: parameters, multiply-adds and output shape of each kind of layer."""

import argparse
from typing import Any

from hfbench.errors import UserError
from hfbench.layers import LAYER_KINDS, default_layers, parse_layer

DEFAULT_MAX_LENGTH = 128
DEFAULT_MAX_SECONDS = 1.0


def add_layers_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand; the caller sets what it runs. Does not import torch."""
    kinds = "\n".join(
        f"  {kind.name}:{','.join((*kind.sizes, *kind.options))}" for kind in LAYER_KINDS.values()
    )
    parser: argparse.ArgumentParser = commands.add_parser(
        "layers",
        help="what each kind of layer costs: parameters, multiply-adds, output",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Parameters (by formula and counted), multiply-adds (measured) and output\n"
        "shape of single layers, and of the layers of a checkpoint's first block. No weights are\n"
        "loaded. Without arguments: one layer of every kind.",
        epilog=f"kinds of layer and their sizes:\n{kinds}\n\nexample:\n"
        "  hfbench layers linear:in=784,out=256 conv2d:in=1,out=32,kernel=3,size=28\n"
        "Sizes that are left out are those of the table without arguments.",
    )
    parser.add_argument("layers", nargs="*", metavar="KIND:SIZE=N,…")
    parser.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="hub name, folder, config.json, bundled/<name> or timm model; repeatable",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help=f"of the text that a block is given (default {DEFAULT_MAX_LENGTH})",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        help=f"of the audio at 16 kHz that a block is given (default {DEFAULT_MAX_SECONDS:g})",
    )
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def layers(options: argparse.Namespace) -> str:
    """The report that the options ask for."""
    chosen = [parse_layer(text) for text in options.layers]
    if not chosen and not options.block:
        chosen = default_layers()
    if not options.block and (options.max_length, options.max_seconds) != (None, None):
        raise UserError("--max-length and --max-seconds belong to --block CHECKPOINT")
    from hfbench.report.layer_tables import format_layers

    layer_costs, block_costs = [], []
    if chosen:
        from hfbench.layer_costs import measure_layer

        layer_costs = [measure_layer(layer) for layer in chosen]
    if options.block:
        from hfbench.block_costs import measure_block  # loads transformers

        max_length = DEFAULT_MAX_LENGTH if options.max_length is None else options.max_length
        max_seconds = DEFAULT_MAX_SECONDS if options.max_seconds is None else options.max_seconds
        block_costs = [
            measure_block(checkpoint, max_length=max_length, max_seconds=max_seconds)
            for checkpoint in options.block
        ]
    return format_layers(layer_costs, block_costs, options.format)
