"""Loads the Lua scripts and reads their headers, which say how each is called.

A header is the comment block at the top of a file. Its lines `KEYS[n] name type`, `ARGV[n] name type`, `Batch:` and
`Under OOM:` and `include:` are data: they decide which keys a call declares, how its arguments are grouped and whether the server
runs it while its memory is full, and the tests hold them against the body. `Rarely:` names functions that most runs do not call,
and says nothing about what the script does.

A library may define `finish()`. The loader calls it at the end of every script that includes the library, however the script
returned.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lockbeat.process import forks
from lockbeat.store.keys import KEYS
from lockbeat.store.rows import RESERVED, TYPES, Row, decoder, encoder

_LINE = re.compile(r"-- (KEYS|ARGV)\[(\d+)\] +(\S+) +(\S+)")
_KEYS_OF = re.compile(r"-- KEYS\[(\d+)\.\.(\d+)\] of (\S+)")
_BATCH = re.compile(r"-- Batch: ARGV\[1\.\.(\d+)\] repeat, one group a call, at most (\d+) a run\.")
_OOM = "-- Under OOM: runs."
_FUNCTION = re.compile(r"^local function (\w+)\(.*?(?: end|(?:\n(?!end$).*)*\nend)$\n?", re.MULTILINE)
_SHEBANG = "#!lua flags=allow-oom\n"
_INCLUDE = re.compile(r"-- include: (.+)")
_FINISH = re.compile(r"^local function finish\(\)$", re.MULTILINE)
_NEEDS = re.compile(r"-- needs: (.+)")
_PAGE = re.compile(r"^local ([A-Z]+) = \{\n((?:  [A-Z_]+ = [^,\n]+,.*\n)+)\}\n", re.MULTILINE)
_PAGE_LINE = re.compile(r"^  ([A-Z_]+) = ([^,\n]+),", re.MULTILINE)
_CONSTANTS = re.compile(r"^local ([A-Z_]+(?:, [A-Z_]+)*) = ([\d *.]+(?:, [\d *.]+)*?|'\w+')(?: *--.*)?$\n", re.MULTILINE)
_PROSE = r"--.*|'(?:\\.|[^'\\])*'"  # comments and strings
_RARELY = re.compile(r"-- Rarely: (.+)")
_LOCAL = re.compile(r"^local (?:function (?P<function>\w+)|(?P<names>\w+(?:, \w+)*)(?: = |$\n?))", re.MULTILINE)
_MANY = 5
_PARTS = re.compile(r"^local q = \{\n(?P<entries>(?:  .*\n)+)\}\n", re.MULTILINE)
_PART = re.compile(r"(\w+) = (\w+\((?:[^()]|\([^()]*\))*\)|\{[^{}]*\}|KEYS\[\d+\]),")


def _root() -> Path:
    here = Path(__file__).parents[1]
    inside = here / "scripts_lua"  # a wheel carries them inside the package
    return inside if inside.is_dir() else here.parent / "scripts_lua"


_loaded: dict[tuple[str, bool], Script] = {}
_loading = forks.OwnLock()


class HeaderError(Exception):
    """A script's header can't be read, or contradicts itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One Lua script, ready to be called by its digest."""

    name: str
    """Folder and verb, such as `lock/try_acquire`."""
    summary: str
    keys: tuple[str, ...]
    """Names of the keys that it declares, as `keys.KEYS` lists them."""
    argv: tuple[str, ...]
    """Names of its arguments; of one group, where calls are batched."""
    batched: bool
    """Many calls may share one run: ARGV repeats, and so does the reply."""
    most: int
    """How many may, so that no run takes longer than 5 ms."""
    under_oom: bool
    """It runs although `maxmemory` is reached: it renews, ends or gives back what is held, and so needs next to no new memory."""
    source: str
    sha: str
    row: type[Row]
    """The class of its rows; `encode` makes them."""
    encode: Callable[..., Row]
    decode: Callable[[Any], Any] | None
    """Names the fields of a reply; None: the header names none."""

    def bare(self) -> Script:
        """The same without the line of flags, which fakeredis can't read."""
        source = self.source.removeprefix(_SHEBANG)
        return replace(self, source=source, sha=_sha(source))


def _sha(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def header(text: str) -> list[str]:
    """The comment lines at the top of a script."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line)
    return lines


def _with_needs(name: str, wanted: list[str], libraries: dict[str, str]) -> dict[str, None]:
    """Libraries, each once and after those that it needs."""
    found: dict[str, None] = {}
    for library in wanted:
        if library not in libraries:
            raise HeaderError(f"{name}: no library {library!r}")
        needs = [match[1].split() for line in header(libraries[library]) if (match := _NEEDS.match(line))]
        found |= _with_needs(library, [need for several in needs for need in several], libraries) | {library: None}
    return found


def _inlined(source: str) -> str:
    """Constants (RESULT.DONE, SET_BACK_MS) by what they say: the server would make each anew in every run."""
    values: dict[str, str] = {}
    for page, lines in _PAGE.findall(source):
        values |= {f"{page}.{name}": f"({said})" for name, said in _PAGE_LINE.findall(lines)}
    for names, said in _CONSTANTS.findall(source):
        values |= {name: f"({one})" for name, one in zip(names.split(", "), said.split(", "), strict=True)}
    source = _CONSTANTS.sub("", _PAGE.sub("", source))
    return re.sub(rf"{_PROSE}|\b(?:[A-Z]+\.)?[A-Z_]+\b", lambda match: values.get(match[0], match[0]), source)


@cache
def _uncommented(text: str) -> str:
    """Without comments, which are half of a library: each connection sends its scripts once."""
    code = re.sub(_PROSE, lambda match: "" if match[0].startswith("--") else match[0], text)
    return re.sub(r"[ \n]*\n", "\n", code).lstrip("\n")


@cache
def _names(text: str) -> tuple[str, ...]:
    """Its names, each once: the words outside of comments and strings. Scripts share most of their functions."""
    return (*dict.fromkeys(re.findall(r"\w+", re.sub(_PROSE, "", text))),)


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(_names(text))


@cache
def _fields(text: str) -> frozenset[str]:
    """Those that it finds in a table by name."""
    return frozenset(re.findall(r"\.(\w+)", re.sub(_PROSE, "", text)))


def _ordered(name: str, libraries: str, text: str) -> str:
    """The libraries with all their locals declared at the top, in the order in which the server finds them soonest.

    It looks for each that a closure uses, from the one declared last on, among those that others use: so they are declared as
    they are first used, and behind all these those of many functions. It saves a run of one call up to a twentieth.
    """
    declared = [word for match in _LOCAL.finditer(libraries) for word in (match["function"] or match["names"]).split(", ")]
    uses, first = Counter[str](), dict[str, int]()
    for body in (*(match[0] for match in _FUNCTION.finditer(libraries)), text):
        for word in _names(body):
            uses[word] += 1
            first.setdefault(word, len(first))
    order = sorted(set(declared), key=lambda word: (uses[word] if uses[word] >= _MANY else 0, first.get(word, 0), word))
    if len(order) < len(declared):
        raise HeaderError(f"{name}: its libraries declare {(Counter(declared) - Counter(order)).popitem()[0]} twice")
    assigned = _LOCAL.sub(lambda match: "" if match[0].endswith("\n") else match[0].removeprefix("local "), libraries)
    return f"local {', '.join(order)}\n{assigned}" if order else libraries


def _reached(included: str, text: str, rarely: set[str]) -> tuple[str, str]:
    """The libraries as the script needs them, for each function costs the server a closure in every run: less those that it does
    not reach. And what stands behind them: it makes those that are reached by way of `rarely` alone, when one is first called.

    It is the same with the parts that `q` names: a tenth of what a run of one call costs is to make them all.
    """
    listed = _PARTS.search(included)
    parts = dict(_PART.findall(listed["entries"])) if listed else {}
    included = _PARTS.sub("\f", included)
    functions: dict[str, str] = {}
    for match in _FUNCTION.finditer(included):
        functions[match[1]] = functions.get(match[1], "") + match[0]
    statements = _words(_FUNCTION.sub("", included)) | _words(text)

    def reach(words: Set[str], stop: set[str]) -> set[str]:
        reached: set[str] = set()
        while words := (words & functions.keys()) - reached:
            reached |= words
            words = set[str]().union(*(_words(functions[word]) for word in words - stop))
        return reached

    def read(reached: set[str]) -> dict[str, str]:
        fields = _fields(_FUNCTION.sub("", included)).union(_fields(text), *(_fields(functions[word]) for word in reached))
        return {part: said for part, said in parts.items() if part in fields}

    everything, often = reach(statements, set()), reach(statements, rarely)
    at_once = read(often - rarely)
    later = {part: said for part, said in read(everything).items() if part not in at_once}
    often |= reach(_words(" ".join(at_once.values())), rarely)
    everything |= often | reach(_words(" ".join(later.values())), set())
    made, asked = [], []

    def place(match: re.Match[str]) -> str:
        name, body = match[1], match[0]
        if name in often - rarely or name not in everything:
            return body if name in everything else ""
        if name not in often:
            made.append(body)
            return ""
        made.append(body)
        asked.append(f"{name} = {name}")
        return f"local function {name}(...)\n  if not _rare then rarely() end\n  return _rare.{name}(...)\nend\n"

    placed = _FUNCTION.sub(place, included)
    if listed:
        placed = placed.replace("\f", f"local q = {{{', '.join(f'{part} = {said}' for part, said in at_once.items())}}}\n")
    made += [f"q.{part} = {said}\n" for part, said in later.items()]
    rare = f"rarely = function()\n{''.join(made)}_rare = {{{', '.join(asked)}}}\nend\n"
    return (f"local _rare, rarely\n{placed}", rare) if made else (placed, "")


def parse(name: str, text: str, libraries: dict[str, str]) -> Script:
    """The script `name`, from its text and the library texts it may include. Raises HeaderError."""
    lines = header(text)
    if not lines or not lines[0].startswith(f"-- {name}: "):
        raise HeaderError(f"{name}: the first line must be `-- {name}: what it guarantees`")
    named: dict[str, list[str]] = {"KEYS": [], "ARGV": []}
    types = []
    batch, most = None, 1
    included, rarely = "", set[str]()
    for line in lines:
        if match := _LINE.match(line):
            kind, index, argument, type_ = match.groups()
            if int(index) != len(named[kind]) + 1:
                raise HeaderError(f"{name}: {kind}[{index}] is out of order")
            if kind == "KEYS" and argument not in KEYS:
                raise HeaderError(f"{name}: keys.py knows no key {argument!r}")
            if kind == "ARGV" and (type_ not in TYPES or argument in RESERVED or not re.fullmatch("[a-z_]+", argument)):
                raise HeaderError(f"{name}: an argument can't be {argument!r} of type {type_!r}")
            types += [type_] if kind == "ARGV" else []
            named[kind].append(argument)
        elif match := _KEYS_OF.match(line):
            first, last, library = int(match[1]), int(match[2]), match[3]
            theirs = [key[3] for key in map(_LINE.match, header(libraries.get(library, ""))) if key]
            if first != len(named["KEYS"]) + 1:
                raise HeaderError(f"{name}: KEYS[{first}] is out of order")
            if len(theirs) != last - first + 1:
                raise HeaderError(f"{name}: {library} declares {len(theirs)} keys, not {last - first + 1}")
            named["KEYS"] += theirs
        elif match := _BATCH.match(line):
            batch, most = int(match[1]), int(match[2])
        elif match := _RARELY.match(line):
            rarely |= set(match[1].split())
        elif match := _INCLUDE.match(line):
            needed = _with_needs(name, match[1].split(), libraries)
            included += "".join(_uncommented(libraries[library] + "\n") for library in needed)
    if batch is not None and batch != len(named["ARGV"]):
        raise HeaderError(f"{name}: a batch of {batch}, but {len(named['ARGV'])} arguments")
    under_oom = _OOM in lines
    finishes = len(_FINISH.findall(included))
    if finishes > 1:
        raise HeaderError(f"{name}: {finishes} of its libraries define finish()")
    if finishes:  # on every way out, which no script can forget then
        text = f"local reply = (function()\n{text}\nend)()\nfinish()\nreturn reply\n"
    often, rare = _reached(included, text, rarely)
    often, text = _inlined(f"{often}\f{rare}{text}").split("\f")
    source = (_SHEBANG if under_oom else "") + _ordered(name, often, text) + text
    row, encode = encoder(name, [*zip(named["ARGV"], types, strict=True)])
    return Script(
        name=name,
        summary=lines[0].split(": ", 1)[1],
        keys=tuple(named["KEYS"]),
        argv=tuple(named["ARGV"]),
        batched=batch is not None,
        most=most,
        under_oom=under_oom,
        source=source,
        sha=_sha(source),
        row=row,
        encode=encode,
        decode=decoder(name, lines),
    )


@cache
def _texts() -> dict[str, str]:
    """Every file, by name, all read at the first call. Later none may be free to open, or another release be in their place."""
    root = _root()
    return {path.relative_to(root).with_suffix("").as_posix(): path.read_text() for path in sorted(root.glob("*/*.lua"))}


@cache
def libraries() -> dict[str, str]:
    """The shared pieces under `_lib/`, by name."""
    return {name: text for name, text in _texts().items() if name.startswith("_lib/")}


def load(name: str, *, bare: bool = False) -> Script:
    """The script of that name; `bare`: as fakeredis takes it. Raises HeaderError, or KeyError."""
    script = _loaded.get((name, bare))
    if script is None:
        with _loading():  # one for all threads, the keeper's as well: its rows are of one class
            if (script := _loaded.get((name, bare))) is None:
                script = parse(name, _texts()[name], libraries())
                _loaded[name, False], _loaded[name, True] = script, script.bare()
                script = _loaded[name, bare]
    return script


class _Rows(dict[str, Callable[..., Row]]):
    def __missing__(self, name: str) -> Callable[..., Row]:
        encode = self[name] = load(name).encode
        return encode


row = _Rows()
"""`row["lock/owner"](key="a")`: a call of that script, ready to be sent. Raises TypeError: not the arguments of its header."""


def names() -> list[str]:
    """Every script there is."""
    return [name for name in _texts() if not name.startswith("_")]
