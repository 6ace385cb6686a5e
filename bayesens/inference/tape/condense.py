"""Tapes as short as they can be: without what leads to no result, and with like instructions made one.

An instruction's own time counts for more than that of its elements, so instructions of one operation that do not need each
other, such as those of the same step at several levels of a hierarchy, become one of all their elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesens.inference.tape.interpreter import OPS

__all__ = ["condense"]

CALL = OPS["call"][0]
ARITY = np.array([arity for _, arity in OPS.values()])
REDUCTIONS = {OPS[name][0] for name in ("total", "product", "largest", "smallest")}


@dataclass(frozen=True)
class _Step:
    """An instruction's needed elements.

    Attributes
    ----------
    kind : tuple of int
        What instructions that may be one have in common: the operation, and the length of a row or the kernel's number.
    out : int array (element)
        Slots of the results.
    arguments : list of int array
        Slots of each argument, (element) or (element, row); of a kernel (argument).
    """

    kind: tuple[int, int]
    out: np.ndarray
    arguments: list[np.ndarray]


def condense(
    size: int, code: np.ndarray, pool: np.ndarray, template: np.ndarray, outputs: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Leave out what does not lead to the outputs, join instructions, and number slots anew.

    Parameters
    ----------
    size : int
        Number of parameters, which keep the first slots.
    code : int array (instruction, 6)
    pool : int array
    template : array (slot)
    outputs : sequence of int array
        Slots of the results.

    Returns
    -------
    code, pool, template, outputs
        As given, but shorter.
    """
    steps, needed = _needed(size, code, pool, len(template), outputs)
    joined = _joined(steps, len(template))
    made = np.concatenate([np.zeros(0, dtype=np.int64), *(step.out for step in joined)])
    given = needed.copy()
    given[made] = False
    order = np.concatenate([np.flatnonzero(given), made])  # parameters, constants, results
    number = np.empty(len(template), dtype=np.int64)
    number[order] = np.arange(len(order))
    lines, parts, pooled = [], [np.zeros(0, dtype=np.int64)], 0
    for step in joined:
        (op, detail), places = step.kind, []
        for slots in step.arguments:
            places.append(pooled)
            parts.append(number[slots].ravel())
            pooled += slots.size
        rest = [detail, 0] if op == CALL or op in REDUCTIONS else (places + [0, 0])[1:3]
        lines.append((op, len(step.arguments[0]), number[step.out[0]], places[0], *rest))
    return (
        np.array(lines, dtype=np.int64).reshape(-1, 6), np.concatenate(parts), template[order],
        [number[slots] for slots in outputs],
    )  # fmt: skip


def _needed(
    size: int, code: np.ndarray, pool: np.ndarray, slots: int, outputs: Sequence[np.ndarray]
) -> tuple[list[_Step], np.ndarray]:
    """What leads to the outputs: steps in their order, and slots."""
    needed = np.zeros(slots, dtype=bool)
    needed[:size] = True
    for found in outputs:
        needed[found] = True
    steps = []
    for op, length, out, *places in code[::-1].tolist():
        elements = np.flatnonzero(needed[out : out + (1 if op == CALL else length)])
        if len(elements):
            detail = places[1] if op == CALL or op in REDUCTIONS else 0
            steps.append(_Step((op, detail), out + elements, _arguments(op, length, places, elements, pool)))
            for found in steps[-1].arguments:
                needed[found] = True
    return steps[::-1], needed


def _arguments(op: int, length: int, places: list[int], elements: np.ndarray, pool: np.ndarray) -> list[np.ndarray]:
    if op == CALL:
        return [pool[places[0] : places[0] + length]]
    if op in REDUCTIONS:
        return [pool[places[0] + places[1] * elements[:, None] + np.arange(places[1])]]
    return [pool[place + elements] for place in places[: ARITY[op]]]


def _joined(steps: list[_Step], slots: int) -> list[_Step]:
    """Join steps of one kind, always those of which most are ready."""
    maker = np.full(slots, -1)
    for i, step in enumerate(steps):
        maker[step.out] = i
    missing, users = [], defaultdict(list)
    ready: dict[tuple[int, int], list[_Step]] = defaultdict(list)
    for i, step in enumerate(steps):
        makers = np.unique(maker[np.concatenate([a.ravel() for a in step.arguments])])
        makers = makers[makers >= 0].tolist()
        missing.append(len(makers))
        for j in makers:
            users[j].append(i)
        if not makers:
            ready[step.kind].append(step)
    number = {id(step): i for i, step in enumerate(steps)}
    out = []
    while ready:
        kind = max(ready, key=lambda kind: len(ready[kind]))
        group = ready.pop(kind)
        out.append(_Step(kind, np.concatenate([s.out for s in group]),
                         [np.concatenate(parts) for parts in zip(*(s.arguments for s in group), strict=True)]))  # fmt: skip
        for i in (i for step in group for i in users[number[id(step)]]):
            missing[i] -= 1
            if missing[i] == 0:
                ready[steps[i].kind].append(steps[i])
    return out
