"""MODULE:BEAT or MODULE:FACTORY(): import the user's module, and find the beat in it or have it made."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeAlias

from lockbeat import program, sync
from lockbeat.cli._errors import Problem, Usage
from lockbeat.errors import LockbeatError

Beat: TypeAlias = program.Beat | sync.Beat


def asynchronous(beat: Beat) -> program.Beat:
    """The beat itself, or the one within a beat for code that blocks."""
    return beat.within if isinstance(beat, sync.Beat) else beat


def load_beat(target: str, *, factory: bool = False) -> Beat:
    """The beat that `MODULE:BEAT` names; without `:BEAT` the only one there is. Raises Usage, Problem.

    `MODULE:FACTORY()`, or `factory`: what the function makes.
    """
    where, colon, name = target.rpartition(":")
    if not colon:
        where, name = target, ""
    factory, name = factory or name.endswith("()"), name.removesuffix("()")
    if factory and not name:
        raise Usage(f"{target!r} names no factory; write MODULE:FACTORY(), such as app.jobs:make_beat()")
    if not where:
        raise Usage(f"{target!r} names no module; write MODULE:BEAT, such as app.jobs:beat or jobs.py:beat")
    module = _import(where)
    beats = {key: value for key, value in vars(module).items() if isinstance(value, Beat)}
    if not name:
        if len({id(beat) for beat in beats.values()}) == 1:
            return next(iter(beats.values()))
        raise Usage(f"{where} has {_listed(beats)}; write {where}:BEAT")
    found: object = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise Usage(f"{where} has no {name!r}; it has {_listed(beats)}") from None
    if factory:
        return _made(where, name, found)
    if isinstance(found, Beat):
        return found
    hint = f"; to have it called, write '{where}:{name}()'" if callable(found) else ""
    raise Usage(f"{name!r} in {where} is no Beat but of type {type(found).__name__}; it has {_listed(beats)}{hint}")


def _made(where: str, name: str, factory: object) -> Beat:
    """What a factory makes."""
    if isinstance(factory, Beat):
        raise Usage(f"{name!r} in {where} is a Beat, no factory; write {where}:{name}")
    if not callable(factory):
        raise Usage(f"{name!r} in {where} can't be called: it is of type {type(factory).__name__}")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise own_error(where, error) from error
    if isinstance(made, Beat):
        return made
    if inspect.iscoroutine(made):
        made.close()
        raise Usage(f"{name}() in {where} is async: there is no event loop yet; make the beat in a plain function")
    raise Usage(f"{name}() in {where} made no Beat but something of type {type(made).__name__}")


def _listed(beats: dict[str, Beat]) -> str:
    if not beats:
        return "no Beat"
    return f"the {'Beat' if len(beats) == 1 else 'Beats'} {', '.join(sorted(beats))}"


def _import(where: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    is_path = where.endswith(".py") or os.sep in where
    try:
        return _import_path(Path(where)) if is_path else importlib.import_module(where)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if is_path or (where != missing and not where.startswith(f"{missing}.")):
            raise own_error(where, error) from error
        hint = f"; a file is named with its ending: {where}.py" if Path(f"{where}.py").is_file() else ""
        raise Usage(f"no module named {missing!r} in {here} or on PYTHONPATH{hint}") from None
    except (Exception, SystemExit) as error:
        if isinstance(error, (Usage, Problem)):
            raise
        if not is_path and isinstance(error, (ValueError, TypeError)) and not _own_frames(error.__traceback__):
            raise Usage(f"{where!r} can't be a module name: {error}") from None
        raise own_error(where, error) from error


def _import_path(path: Path) -> ModuleType:
    if not path.is_file():
        raise Usage(f"no file {path} in {os.getcwd()}")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Usage(f"{path} is no Python file")
    sys.path.insert(0, str(path.parent))  # as `python FILE` does, so that it can import its neighbours
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem, None)  # half a module is none, as `import` sees it
        raise
    return module


def _own_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames of the user's code: neither ours nor the import machinery's."""
    strange = (str(Path(__file__).parents[1]) + os.sep, importlib.__file__, "<")
    return [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(strange)]


def own_error(where: str, error: BaseException) -> Problem:
    """What the user's module raised, and where: one line for what lockbeat refused, its own traceback for the rest."""
    frames = _own_frames(error.__traceback__)
    if isinstance(error, SyntaxError):
        return Problem(f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}", code=2)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else where
    if isinstance(error, LockbeatError):
        return Problem(f"{place}: {error}", code=2)
    said = str(error)
    details = "Traceback (most recent call last):\n" + "".join(traceback.format_list(frames)) if len(frames) > 1 else ""
    return Problem(f"{place}: {type(error).__name__}{': ' if said else ''}{said}", code=2, details=details)
