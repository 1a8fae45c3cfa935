"""The protocol of a script, compiled from its header: a call's arguments as a row, checked by name and type; its reply by name.

A row is checked once, where it is made, and can be sent as often as needed: whoever passes it on compares its class, and no more.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

from lockbeat.errors import ScriptError
from lockbeat.store import results


class Row(tuple[str | bytes | int, ...]):
    """The arguments of one call of a script, in the order of its header. Each can be read by its name."""

    __slots__ = ()
    script: ClassVar[str] = ""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _text(where: str, value: object) -> str | bytes:
    if isinstance(value, (str, bytes)):
        return value
    raise TypeError(f"{where} must be str or bytes, not {value!r}")


def _id(where: str, value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise TypeError(f"{where} must be a str and not empty, not {value!r}")


def _int(where: str, value: object) -> int:
    if value.__class__ is int:
        return value
    raise TypeError(f"{where} must be an int, not {value!r}")


def _list(where: str, value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        try:
            return f"[{', '.join(map(encode_basestring_ascii, value))}]"
        except TypeError:  # an item
            pass
    raise TypeError(f"{where} must be a list of str, not {value!r}")


# By type: what lets an argument pass at once, where it stands for {0}; and what looks at it, and encodes it, if any does not.
TYPES: dict[str, tuple[str, Callable[[str, object], str | bytes | int]]] = {
    "str": ("{0}.__class__ is str", _text),
    "text": ("{0}.__class__ is str", _text),
    "json": ("{0}.__class__ is str", _text),
    "id": ("{0}.__class__ is str and {0}", _id),
    "int": ("{0}.__class__ is int", _int),
    "list": ("False", _list),
}
RESERVED = {"lease", "script"}
"""What `Store.call` takes beside the arguments, and what a row says itself."""


def encoder(script: str, arguments: Sequence[tuple[str, str]]) -> tuple[type[Row], Callable[..., Row]]:
    """The class of the script's rows; and the function that makes one, from arguments by name. It raises TypeError."""
    names = [name for name, _ in arguments]
    fields = {name: property(itemgetter(place)) for place, name in enumerate(names)}
    row = type(script, (Row,), {"__slots__": (), "script": script, **fields})
    known: dict[str, Any] = {f"_{kind}": check for kind, (_, check) in TYPES.items()} | {"_row": row}
    passes = " and ".join(TYPES[kind][0].format(name) for name, kind in arguments) or "True"
    lines = [f"def encode({'*, ' if names else ''}{', '.join(names)}):", f" if not ({passes}):", "  pass"]
    lines += [f"  {name} = _{kind}({f'{script}: {name}'!r}, {name})" for name, kind in arguments]
    lines.append(f" return _row(({''.join(f'{name}, ' for name in names)}))")
    exec("\n".join(lines), known)  # noqa: S102 - words of headers, which `parse` holds to a-z and _
    known["encode"].__qualname__ = script  # what Python says of an argument that is missing, or too many, begins with it
    return row, known["encode"]


_REPLY = re.compile(r"-- (?:Returns |        ) \{(.*)")
_SHAPE = re.compile(r"([^{}]*)\}(?: |$)")
_FIELD = re.compile(r"(\*?)([a-z_]+)(?:=([A-Z_]+|-?\d+))?")


def decoder(script: str, header: Sequence[str]) -> Callable[[Any], Any] | None:
    """What gives the fields of the script's reply their names, as `Returns` has them. None: it names none.

    `{fence, now_ms}`: so many fields. `{now_ms, *rows}`: the last takes the rest. `{fence=0, wait_ms}`, `{said=BUSY, owner}`:
    with this first field the others are these. `{}`: an empty reply, which becomes None.
    """
    shapes: dict[int | None, tuple[type, int, bool]] = {}
    for line in header[next((at for at, line in enumerate(header) if line.startswith("-- Returns ")), len(header)) :]:
        reply = _REPLY.match(line)
        if reply is None:
            continue
        shape = _SHAPE.match(reply[1])
        fields = [_FIELD.fullmatch(word.strip()) for word in shape[1].split(",")] if shape and shape[1] else []
        if shape is None or not all(fields):
            return None
        found = [field.groups() for field in fields if field]
        if found:
            first = found[0][2]
            key = None if first is None else getattr(results, first) if first.isupper() else int(first)
            shapes[key] = namedtuple("Reply", [name for _, name, _ in found]), len(found), found[-1][0] == "*"
    if not shapes:
        return None
    new, default = tuple.__new__, shapes.pop(None, (tuple, -1, False))

    def decode(reply: Any) -> Any:
        if not reply:
            return None
        kind, width, rest = shapes.get(reply[0], default) if shapes else default
        if len(reply) == width and not rest:
            return new(kind, reply)
        if not rest or len(reply) < width - 1:
            raise ScriptError(f"{script} answered {reply!r}, and its header has no such reply")
        return new(kind, (*reply[: width - 1], reply[width - 1 :]))

    return decode
