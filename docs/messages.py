"""Find every message of errors and warnings in the sources, for the directive ``messages`` of the page `errors.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "bayesens"
INSIDE = {"AssertionError", "AttributeError", "NotImplementedError", "Untraceable"}  # nobody is to read these
DOOR = "package"  # what stands in no folder


def shown(field: ast.expr) -> str:
    """Return a few words for what is filled in: the name of the value, or both texts of a choice."""
    match field:
        case ast.Constant():
            return str(field.value)
        case ast.JoinedStr():
            return text_of(field) or "..."
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"<{name.strip('_').replace('_', ' ')}>"
        case ast.IfExp(body=body, orelse=other):
            texts = [text for text in (shown(body), shown(other)) if text.strip()]
            return "/".join(dict.fromkeys(texts))
        case ast.Call(func=ast.Name(id="len" | "sum")):
            return "<number>"
        case ast.Call(args=[first, *_]):
            return shown(first)
        case ast.Subscript(value=ast.Attribute(attr="iloc" | "loc" | "values", value=value)):
            return shown(value)
        case ast.Call(func=ast.Attribute(value=value)) | ast.Subscript(value=value):
            return shown(value)
    return "<...>"


def text_of(node: ast.expr) -> str:
    """Return a message with words in place of what is filled in; nothing where it is no text of its own."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(
                shown(part.value) if isinstance(part, ast.FormattedValue) else text_of(part) for part in values
            )
        case ast.BinOp(op=ast.Add(), left=left, right=right) if text_of(left) or text_of(right):
            return (text_of(left) or shown(left)) + (text_of(right) or shown(right))
        case ast.IfExp(body=body, orelse=other) if text_of(body) and text_of(other):
            return f"{text_of(body)} / {text_of(other)}"
    return ""


def said(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of every message of a file."""
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind), args=[first, *_])) if kind[0].isupper():
                pass
            case ast.Call(func=ast.Name(id="warn" | "warn_once") | ast.Attribute(attr="warn"), args=[first, *_]):
                kind = "warning"
            case _:
                continue
        text = re.sub(r"\s+", " ", text_of(first)).strip()
        if kind not in INSIDE and len(re.findall(r"[a-z]{2,}", re.sub("<.*?>", "", text))) > 2:
            yield kind, text


@cache
def messages() -> dict[str, list[tuple[str, str]]]:
    """Return texts and kinds of the messages of every package, sorted as a reader sorts words."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")) + sorted((PACKAGE / "models").glob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        door = parts[0] if len(parts) > 1 else DOOR
        every = {(text, kind) for kind, text in said(ast.parse(path.read_text(encoding="utf-8")))}
        found.setdefault(door, set()).update(every)
    return {
        door: sorted(every, key=lambda one: re.sub("[^a-z]", "", one[0].lower()))
        for door, every in found.items()
        if every
    }
