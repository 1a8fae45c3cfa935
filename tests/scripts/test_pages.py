"""The pages that list what both languages share: each is the same in Lua and in Python, and nothing is spelled anywhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

import lockbeat
from lockbeat.store import messages, reasons, results
from lockbeat.store.scripts import libraries
from tests.scripts.decisions import Decisions
from tests.scripts.test_headers import SCRIPTS, code

PACKAGE = Path(lockbeat.__file__).parent
LUA = {path.relative_to(SCRIPTS).with_suffix("").as_posix(): code(path.read_text()) for path in SCRIPTS.glob("*/*.lua")}


def rows(library: str) -> dict[str, tuple[str, str]]:
    """Of a page that is a table: its names, their values and what is said of them."""
    found = re.findall(r"^  (\w+) = (\S+), +-- (.+)$", libraries()[library], re.MULTILINE)
    return {name: (value, said) for name, value, said in found}


def test_a_result_has_the_same_name_number_and_meaning_in_both_languages() -> None:
    said = re.findall(r"^(\w+): Final = (-?\d+)  # (.+)$", Path(results.__file__).read_text(), re.MULTILINE)
    assert rows("_lib/results") == {name: (number, text) for name, number, text in said}
    numbers = [number for _, number, _ in said]
    assert len({*numbers}) == len(numbers), "a number has one meaning"


def test_a_script_answers_by_names_that_the_page_has() -> None:
    for name, text in LUA.items():
        assert {*re.findall(r"RESULT\.(\w+)", text)} <= rows("_lib/results").keys(), name


def test_no_script_spells_a_refusal_by_its_number() -> None:
    for name, text in LUA.items():
        if name != "_lib/results":
            # What counts from the end of a text or of a list, and a loop that counts down, is no refusal.
            ours = re.sub(r"(?:string\.sub|'ZRANGE')[^\n]*|for .*, -2 do", "", text)
            assert not re.findall(r"(?:[=,({]|\breturn|\bor|\band) ?-[2-9]|(?:\breturn|\bsaid =|\bcode =) ?-\d", ours), name


def test_no_module_spells_a_refusal_by_its_number() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "results.py":
            assert not re.findall(r"(?:==|!=|<=|\bin) \(?-[1-9]|[{,(] ?-[2-9]:", path.read_text()), path


MESSAGES: list[tuple[str, tuple[Any, ...], messages.Message]] = [
    ("granted", ("0a.1",), messages.Granted("0a.1")),
    ("next", ("0a.1", 2000), messages.Next("0a.1", 2000)),
    ("ended", ("job with a space@17",), messages.Ended("job with a space@17")),
    ("cancel", ("é@17",), messages.Cancel("é@17")),
    ("task", (), messages.TaskWaits()),
    ("job", (), messages.JobDue()),
    ("backfill", (), messages.Backfilling()),
    ("event", (), messages.Happened()),
]


@pytest.mark.parametrize(("word", "fields", "message"), MESSAGES)
def test_what_the_one_page_formats_the_other_takes_apart(word: str, fields: tuple[Any, ...], message: messages.Message) -> None:
    text = Decisions("_lib/messages").call(f"message_{word}", *fields)
    payload = text if isinstance(text, bytes) else text.encode()
    assert payload.split(b" ")[0] == word.encode()
    assert messages.parse(payload) == message


def test_every_message_is_tabled_here_and_in_the_header_of_its_page() -> None:
    page = libraries()["_lib/messages"]
    assert {type(message) for _, _, message in MESSAGES} == {*get_args(messages.Message)}
    assert {word for word, _, _ in MESSAGES} == {*re.findall(r"^local function message_(\w+)", page, re.MULTILINE)}
    for word, fields, _ in MESSAGES:
        [told] = re.findall(rf"^-- {word} +((?:[A-Z_]+ )*) *(?:waiter's own|awaiter's own|bell) ", page, re.MULTILINE)
        assert len(told.split()) == len(fields), word


@pytest.mark.parametrize(
    "payload", [b"", b"granted", b"granted ", b"next", b"next t", b"next t soon", b"next t 1e9", b"task 7", b"jobs", b"\xff\xfe"]
)
def test_what_is_no_message_of_ours_is_none(payload: bytes) -> None:
    assert messages.parse(payload) is None


def test_no_script_spells_a_message_and_no_module_takes_one_apart_elsewhere() -> None:
    words = "|".join(word for word, fields, _ in MESSAGES if fields)
    for name, text in LUA.items():
        if name != "_lib/messages":
            assert not re.findall(rf"'(?:{words}) |(?:'PUBLISH', |\bsay\().*, '", text), name
    for path in PACKAGE.rglob("*.py"):
        assert (
            not re.findall(r"payload\.(?:startswith|partition|split|decode)|payload == b", path.read_text())
            or path.name == "messages.py"
        )


def test_a_reason_has_the_same_code_in_both_languages_and_a_sentence() -> None:
    page = {name: code.strip("'") for name, (code, _) in rows("_lib/reasons").items()}
    assert page.items() >= dict(re.findall(r'^(\w+): Final = "(\w+)"$', Path(reasons.__file__).read_text(), re.MULTILINE)).items()
    assert page == {code.upper(): code for code in reasons.SENTENCES}


def test_a_reason_is_spelled_nowhere_else() -> None:
    """But for codes that are words of other things, too, such as a state or an option."""
    others = {"max_delay", "max_duration", "shutdown", "late", "overlap"}  # options, and words of the demo
    others |= {"cancelled", "expired", "fired", "released", "retried", "unreadable"}  # states, and what is counted
    others |= {"paused", "skip_next", "retired"}  # a field of a job, a verb, and a state
    codes = "|".join(reasons.SENTENCES.keys() - others)
    words = [word for said in reasons.SENTENCES.values() for word in re.split(r"\{\w+\}", said) if len(word) > 20]
    for name, text in LUA.items():
        if name != "_lib/reasons":
            assert not re.findall(rf"'(?:{codes})'", text), name
            assert not any(word.strip() in text for word in words), name
    for path in PACKAGE.rglob("*.py"):
        if path.name != "reasons.py":
            assert not re.findall(rf'"(?:{codes})"', path.read_text()), path


def test_a_script_gives_reasons_by_names_that_the_page_has() -> None:
    for name, text in LUA.items():
        assert {*re.findall(r"REASON\.(\w+)", text)} <= rows("_lib/reasons").keys(), name


def test_a_sentence_names_what_its_page_says_and_nothing_else() -> None:
    for name, (quoted, meaning) in rows("_lib/reasons").items():
        detail = re.match(r"((?:[A-Z]+ ?)+): ", meaning)
        fields = {
            "ID": "{task}",
            "OWNER": "{owner}",
            "BY": "{by}",
            "MS": "{ms}",
            "NUMBER": "{number}",
            "SLOT": "{slot}",
            "SLOT THEN NOW": "{slot}{versions}",
            "CALENDAR ENTRY": "{calendar}",
        }
        named = "".join(re.findall(r"\{\w+\}", reasons.SENTENCES[quoted.strip("'")]))
        assert named == fields.get(detail[1] if detail else "", "") or name in (
            "FIRED",
            "TOOK_PLACE",
            "BUFFERED",
            "BACKFILLED",
        ), name


@pytest.mark.parametrize(
    ("reason", "detail", "sentence"),
    [
        ("overlap", "a job@{1}@17", "overlap: a job@{1}@17 had not ended"),
        ("late", "60000", "more than 60000 ms late, and catch-up is skip"),
        (reasons.FIRED, "me", ""),
        (
            reasons.RULES_CHANGED,
            "2026-05-01T03:00:00+00:00 2023c 2026a",
            "2026-05-01T03:00:00+00:00 is no slot any more: the rules of its time zone changed (tzdata 2023c then, 2026a now)",
        ),
        ("of_a_newer_instance", "and what it names", "of_a_newer_instance and what it names"),
    ],
)
def test_a_sentence_is_made_of_code_and_detail(reason: str, detail: str, sentence: str) -> None:
    assert reasons.sentence(reason, detail) == sentence


def test_a_reader_may_spell_tasks_and_durations() -> None:
    assert reasons.sentence("overlap", "j@0", task=lambda found: f"<{found}>") == "overlap: <j@0> had not ended"
    assert reasons.sentence("late", "60000", ms=lambda ms: f"{ms // 1000} s") == "more than 60 s late, and catch-up is skip"
