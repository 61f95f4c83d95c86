"""YAML as plain values, bounded before its references are followed."""

from typing import Any

import yaml

MOST_VALUES = 100_000  # with every reference (*name) written out
LONGEST_NUMBER = 400  # characters
_NUMBER = "tag:yaml.org,2002:int"


def parse_yaml(text: str) -> Any:
    """What ``yaml.safe_load`` gives.

    Raises ValueError for what is no YAML, for references that lead into themselves or stand for
    more than MOST_VALUES values, for numbers longer than LONGEST_NUMBER, and for nesting that
    Python's limits refuse.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node) > MOST_VALUES:
            raise ValueError(f"its references stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("lists or sections are nested too deep") from None
    finally:
        loader.dispose()


def _size(node: yaml.Node) -> int:
    """How many values a node is with every reference written out; not counted much further."""
    known: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting = [node]
    while waiting:
        one = waiting[-1]
        inner = _inner(one)
        if id(one) in known:
            waiting.pop()
        elif id(one) in open_nodes:  # everything inside is known
            known[id(one)] = min(1 + sum(known[id(part)] for part in inner), 2 * MOST_VALUES)
            open_nodes.remove(id(one))
            waiting.pop()
        else:
            open_nodes.add(id(one))
            if any(id(part) in open_nodes for part in inner):
                raise ValueError("a reference leads into itself")
            waiting.extend(inner)
    return known[id(node)]


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if node.tag == _NUMBER and len(node.value) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(node.value):,} characters")
    return []
