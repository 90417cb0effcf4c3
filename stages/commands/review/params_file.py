"""Change one entry of `data.handwriting` in the text of params.yaml, and leave all else as it is.

A YAML library that writes the whole file would wrap its long lists in another way.
"""

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from stages.common.runner import StageError


def update(text: str, name: str, entry: dict[str, Any] | None) -> str:
    """Return the text with another source of handwriting.

    Args:
        text: The content of params.yaml.
        name: The name of the source.
        entry: The source, or None to remove it. If the text already has it, only its `sha256` may
            be another.

    Raises:
        StageError: The list is written in a form that this function cannot change.
    """
    expected = _parse(text)
    sources = expected["data"]["handwriting"]
    places = [place for place, source in enumerate(sources) if source["name"] == name]
    if not places and entry is None:
        return text
    listed = _child(_child(_yaml().compose(text), "data"), "handwriting")
    assert isinstance(listed, CollectionNode)
    if not places:
        assert entry is not None
        sources.append(entry)
        changed = _append(text, listed, entry)
    elif entry is not None:
        sources[places[0]] = entry
        sha256 = _child(listed.value[places[0]], "sha256")
        start, end = sha256.start_mark.index, sha256.end_mark.index
        changed = text[:start] + entry["sha256"] + text[end:]
    else:
        del sources[places[0]]
        old = listed.value[places[0]]
        lines = text.splitlines(keepends=True)
        del lines[old.start_mark.line : _last(old).end_mark.line + 1]
        changed = "".join(lines)
    if _parse(changed) != expected:
        raise StageError(
            f"the list data.handwriting of params.yaml has a form that this command cannot edit; "
            f"make its entry {name} by hand: {'none' if entry is None else _rendered(entry)}"
        )
    return changed


def _append(text: str, listed: CollectionNode, entry: dict[str, Any]) -> str:
    """Add an entry to the end of a list."""
    column = listed.start_mark.column
    if not listed.flow_style:
        line_end = f"{text}\n".index("\n", _last(listed).end_mark.index)
        return f"{text[:line_end]}\n{' ' * column}- {_rendered(entry)}{text[line_end:]}"
    if listed.value:
        start, separator = listed.value[-1].end_mark.index, ","
    else:
        start, separator = listed.start_mark.index + 1, ""
    line = text[: listed.start_mark.index].rpartition("\n")[2]
    indent = " " * (len(line) - len(line.lstrip()))
    # The bracket gets a line of its own, so that the entry can be removed as a line.
    bracket = f",\n{indent}" if re.match(r" *\]", text[start:]) else ""
    return f"{text[:start]}{separator}\n{indent}  {_rendered(entry)}{bracket}{text[start:]}"


def _rendered(entry: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}"


def _parse(text: str) -> Any:
    try:
        return _yaml().load(text)
    except Exception:  # an edit can make any error of YAML, and its result is then not used
        return None


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _child(node: Node, name: str) -> Node:
    return next(value for key, value in node.value if key.value == name)


def _last(node: Node) -> Node:
    """Return the last node in a block. The end of the block itself is behind later comments."""
    while isinstance(node, CollectionNode) and not node.flow_style:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return node
