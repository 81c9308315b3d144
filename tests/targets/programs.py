"""The text of a compiled program, read: launches, loops, library calls, collectives, memory."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

# What the device does not run: names for memory, and the second halves of what is asynchronous.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "domain"}
_FREE |= {"opt-barrier", "partition-id", "replica-id"}
_COLLECTIVES = {"all-reduce", "all-gather", "all-to-all", "reduce-scatter", "send", "recv"}
_COLLECTIVES |= {"collective-permute", "collective-broadcast", "ragged-all-to-all"}
_LIBRARY = re.compile(r"cublas|cusolver|cusparse|cufft|cudnn|\bcub\b|potrf|syevd|gesvd|getrf")
_KERNEL = "__gpu$xla.gpu.triton"
_HEAD = re.compile(r"^(ENTRY )?%?(\S+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (.*)$")
_SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One collective: its kind, the shapes of its results, their bytes, and how often it runs."""

    kind: str
    shapes: tuple[str, ...]
    size: int
    turns: int


class Program(NamedTuple):
    """What a program costs beside its arithmetic.

    Attributes:
      launches: of a whole run: a loop's at every turn, of one whose turns nobody knows those of one
        turn.
      outside: launches outside of loops.
      loops: (launches at a turn, turns) of each loop; turns of None are counted by the host, which
        waits at each.
      waits: loops of unknown turns, and branches, which the host has to choose.
      kernels: launches of one-launch solvers among ``launches``.
      library: calls of cuBLAS, cuSOLVER and the like, by name.
      library_in_loops: those of them in a loop.
      collectives: in the order of the program.
      temporary: bytes of temporary memory on a device.
      flops: as XLA counts them; None where it does not.
    """

    launches: int
    outside: int
    loops: list[tuple[int, int | None]]
    waits: int
    kernels: int
    library: dict[str, int]
    library_in_loops: dict[str, int]
    collectives: list[Collective]
    temporary: int | None = None
    flops: float | None = None


class _Operation(NamedTuple):
    kind: str
    result: str
    rest: str


def read(compiled: Any) -> Program:
    """Read a compiled program."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return read_text(compiled.as_text())._replace(
        temporary=None if memory is None else memory.temp_size_in_bytes,
        flops=(cost or {}).get("flops"),
    )


def read_text(text: str) -> Program:
    """Read the text of a compiled module."""
    computations, entry = _computations(text)
    launches, outside, kernels, waits = 0, 0, 0, 0
    loops: list[tuple[int, int | None]] = []
    library: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for operation, turns, looped in _run(computations, entry, 1, False):
        if operation.kind == "while":
            known = _turns(operation)
            per_turn = sum(
                _is_launch(inner) * times
                for part in _loop_parts(operation)
                for inner, times, _ in _run(computations, part, 1, True)
            )
            loops.append((per_turn, known))
            waits += known is None
        waits += operation.kind == "conditional"
        if not _is_launch(operation):
            continue
        launches += turns
        outside += not looped
        target = _target(operation)
        kernels += turns * (target == _KERNEL)
        if _LIBRARY.search(target):
            library[target] += 1
            inside[target] += looped
    collectives = [
        _collective(operation, turns)
        for operation, turns, _ in _run(computations, entry, 1, False, fused=True)
        if _plain_kind(operation) in _COLLECTIVES
    ]
    return Program(
        launches, outside, loops, waits, kernels, dict(library), dict(+inside), collectives
    )


def _computations(text: str) -> tuple[dict[str, list[_Operation]], str]:
    """The operations of each computation by its name, and the name of the one to begin with."""
    found: dict[str, list[_Operation]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = found[head[2]] = []
            entry = head[2] if head[1] else entry
        elif current is not None and (match := _LINE.match(line)):
            result, rest = _split_type(match[2])
            kind, _, rest = rest.partition("(")
            current.append(_Operation(kind, result, rest))
    return found, entry


def _split_type(text: str) -> tuple[str, str]:
    """The type of a result, in which no space is outside of brackets, and what follows."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            return text[:i], text[i + 1 :]
    return text, ""


def _run(
    computations: dict[str, list[_Operation]],
    name: str,
    turns: int,
    looped: bool,
    fused: bool = False,
) -> Iterator[tuple[_Operation, int, bool]]:
    """All that a computation runs, how often, and whether in a loop; what is fused if asked for."""
    for operation in computations[name]:
        yield operation, turns, looped
        if operation.kind == "while":
            times = turns * (_turns(operation) or 1)
            for part in _loop_parts(operation):
                yield from _run(computations, part, times, True, fused)
        elif operation.kind == "conditional":
            names = _called(operation, "branch_computations", "true_computation")
            branches = [list(_run(computations, part, turns, looped, fused)) for part in names]
            yield from max(branches, key=lambda ran: sum(_is_launch(one[0]) for one in ran))
        elif operation.kind in ("call", "async-start") or (fused and operation.kind == "fusion"):
            for part in _called(operation, "to_apply", "calls", "called_computations"):
                yield from _run(computations, part, turns, looped, fused)


def _called(operation: _Operation, *attributes: str) -> list[str]:
    names = []
    for attribute in attributes:
        for match in re.finditer(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", operation.rest):
            names += re.findall(r"%?([\w.\-]+)", match[1])
            if attribute == "true_computation":
                names += _called(operation, "false_computation")
    return names


def _loop_parts(operation: _Operation) -> list[str]:
    """The body of a loop, and its condition where it runs."""
    known = _turns(operation) is not None
    return _called(operation, "body", *([] if known else ["condition"]))


def _turns(operation: _Operation) -> int | None:
    match = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
    return int(match[1]) if match else None


def _plain_kind(operation: _Operation) -> str:
    return operation.kind.removesuffix("-start")


def _is_launch(operation: _Operation) -> bool:
    holds_others = operation.kind in ("while", "conditional", "call", "async-start")
    second_half = operation.kind.endswith(("-done", "-update"))
    return not (operation.kind in _FREE or holds_others or second_half)


def _target(operation: _Operation) -> str:
    match = re.search(r'custom_call_target="([^"]*)"', operation.rest)
    return match[1] if match and operation.kind == "custom-call" else ""


def _collective(operation: _Operation, turns: int) -> Collective:
    shapes = _SHAPE.findall(operation.result)
    if operation.kind in ("all-gather-start", "collective-permute-start"):
        shapes = shapes[len(shapes) // 2 :]  # its operands are in the type too
        shapes = shapes[:1] if operation.kind == "collective-permute-start" else shapes
    sizes = [_bits(kind) * math.prod(map(int, filter(None, s.split(",")))) for kind, s in shapes]
    names = tuple(f"{kind}[{shape}]" for kind, shape in shapes)
    return Collective(_plain_kind(operation), names, sum(sizes) // 8, turns)


def _bits(kind: str) -> int:
    match = re.match(r"[a-z]+(\d+)", kind)
    return int(match[1]) if match else 8
