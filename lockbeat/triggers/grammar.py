"""Reads a cron line: croniter expands the fields, this file settles what it reads otherwise than cron does.

croniter (7.0) reads `5-5` as the whole field, miscounts a stepped range that wraps (`23-5/3`), ignores `W`
when only asked to expand, draws lots for `R`, and drops the plain day from `mon,mon#2`. The first two are
spelt out before it sees them; the others are refused. Its search for the next date is not used: see cron.py.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from croniter import croniter

from ..errors import InvalidTrigger

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = 1000  # six fields that list every value come to about 600


@dataclass(frozen=True, eq=False)
class _Field:
    name: str
    low: int
    high: int
    names: dict[str, int]
    unit: str = ""
    """What `timedelta` calls a step of one; empty: none is as long as the next."""

    def value(self, text: str) -> int | None:
        """A number or name of this field; None when it is neither."""
        if text in self.names:
            return self.names[text]
        number = int(text) if re.fullmatch("[0-9]{1,2}", text) else -1
        return number if self.low <= number <= self.top else None

    def between(self, low: int, high: int, step: int = 1) -> list[int]:
        """The values of a range, which may wrap."""
        top = high if low <= high else high + self.size
        return [(value - self.low) % self.size + self.low for value in range(low, top + 1, step)]

    @property
    def size(self) -> int:
        return self.high - self.low + 1

    @property
    def top(self) -> int:
        return 7 if self.names is _DAY_NUMBERS else self.high

    @property
    def allowed(self) -> str:
        """What to write, for an error."""
        return f"allowed are {self.low}-{self.top}{_MORE.get(self.name, '')}"


_MORE = {"day-of-month": ", L", "month": ", jan-dec", "day-of-week": ", sun-sat, 5#2, L5"}
_DAY_NUMBERS = {name: i for i, name in enumerate(_DAYS)}
_FIELDS = (
    _Field("second", 0, 59, {}, "seconds"),
    _Field("minute", 0, 59, {}, "minutes"),
    _Field("hour", 0, 23, {}, "hours"),
    _Field("day-of-month", 1, 31, {}, "days"),
    _Field("month", 1, 12, {name: i for i, name in enumerate(_MONTHS, start=1)}),
    _Field("day-of-week", 0, 6, _DAY_NUMBERS, "days"),
)
_MONTH_DAY, _WEEKDAY = 3, 5


@dataclass(frozen=True)
class Fields:
    """A cron line as sets of numbers. Weekdays count from Sunday, 0."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    last_day: bool
    months: frozenset[int]
    weekdays: frozenset[int]
    nth_weekdays: frozenset[tuple[int, int]]  # (weekday, 1 to 5); 0: the last one of the month
    both_days: bool  # both day fields must match, for one starts with `*`; else either will do
    real_time: bool  # a star in second, minute or hour: follows real time when the clock is changed


@lru_cache(maxsize=4096)
def canonical(expression: str) -> str:
    """`expression` with one space between fields, names in lower case, aliases written out, `5L` as `L5`.

    Raises InvalidTrigger ("expression") for what can't be read.
    """
    if len(expression) > _LONGEST:
        raise _invalid(f"longer than {_LONGEST} characters")
    spelt = " ".join(expression.split())
    text = spelt.lower()
    if not text:
        raise _invalid("is empty")
    if text == "@reboot":
        raise _invalid("'@reboot' is not a time: every instance starts on its own; run it at startup")
    if found := re.match(r"((?:CRON_)?TZ)=(\S*) ?(.*)", spelt, re.IGNORECASE):
        raise _invalid(f"{found[1].upper()}= is no part of the line; {_zone_hint(found[3], found[2])}")
    if text.startswith("@"):
        if text.split(" ")[0] == "@every":
            raise _invalid(f"{_quote(expression)} is no cron line; a period is @beat.every({_period(text[6:])})")
        alias, _, zone = spelt.partition(" ")
        if alias.lower() in _ALIASES and _ZONE.fullmatch(zone.lower()):
            raise _invalid(f"{_quote(spelt)} ends with a time zone; {_zone_hint(alias, zone)}")
        if text not in _ALIASES:
            raise _invalid(f"unknown alias {_quote(expression)}; known: {' '.join(_ALIASES)}")
        return _ALIASES[text]
    words = text.split(" ")
    if _ZONE.fullmatch(words[-1]) and len(words) in (6, 7):
        line, _, zone = spelt.rpartition(" ")
        raise _invalid(f"{_quote(spelt)} ends with a time zone; {_zone_hint(line, zone)}")
    if len(words) not in (5, 6):
        year = "; there is no year field" if len(words) == 7 else ""
        raise _invalid(
            f"{_quote(expression)} has {len(words)} field{'s' * (len(words) != 1)}, not 5 (minute hour "
            f"day-of-month month day-of-week) or 6 (second first){year}"
        )
    fields = _FIELDS[-len(words) :]
    canon = " ".join(_canonical_field(field, word) for field, word in zip(fields, words, strict=True))
    parse(settled(canon, ""))
    return canon


_HASHED = re.compile(r"H(?:\(([^()]*)\))?(?:/([0-9]+))?", re.IGNORECASE)
_SAFE_DAYS = 28
"""`H` takes no day of the month beyond: a job would be left out in February."""


def is_hashed(canon: str) -> bool:
    """Whether a canonical expression has `H` in it."""
    return "H" in canon


@lru_cache(maxsize=4096)
def settled(canon: str, job: str) -> str:
    """A canonical expression with numbers for each `H`, as the job of that name has it. Raises InvalidTrigger ("expression").

    Jenkins' rules: `H` is one number of its field, `H(0-29)` one of that range, `H/15` every fifteenth of its field from one
    of the first fifteen; in the days of the month it goes up to 28. A digest of field and name decides, so that it is the same on
    every host, and minute and hour don't go together.
    """
    if not is_hashed(canon):
        return canon
    words = canon.split(" ")
    for at, (field, word) in enumerate(zip(_FIELDS[-len(words) :], words, strict=True)):
        try:
            words[at] = ",".join(_settle(field, token, job) for token in word.split(","))
        except _UnreadableError as error:
            raise _unreadable(field, word, canon, error) from None
    return " ".join(words)


def _settle(field: _Field, token: str, job: str) -> str:
    found = _HASHED.fullmatch(token)
    if found is None:
        return token
    bounds, step = found.groups()
    values = list(range(field.low, (_SAFE_DAYS if field.name == "day-of-month" else field.high) + 1))
    if bounds is not None:
        low, high = map(field.value, bounds.partition("-")[::2])
        if low is None or high is None:
            raise _UnreadableError(f"H takes a range as in H({field.low}-{field.high}); {field.allowed}")
        values = field.between(low, high)
    if (step is not None and len(step) > 4) or not 1 <= int(step or 1) <= len(values):
        raise _UnreadableError(f"a step of H must be 1 to {len(values)}, as many as it chooses from")
    digest = hashlib.blake2b(f"{field.name} {job}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    chosen = [values[number % len(values)]] if step is None else values[number % int(step) :: int(step)]
    return ",".join(map(str, chosen))


@lru_cache(maxsize=4096)
def parse(canon: str) -> Fields:
    """The fields of a canonical expression. Raises InvalidTrigger ("expression")."""
    words = canon.split(" ")
    if len(words) == 5:
        words.insert(0, "0")
    parsed = []
    for field, word in zip(_FIELDS, words, strict=True):
        try:
            parsed.append(_expand(field, word))
        except _UnreadableError as error:
            raise _unreadable(field, word, canon, error) from None
    days, weekdays = parsed[_MONTH_DAY], parsed[_WEEKDAY]
    return Fields(
        seconds=tuple(sorted(parsed[0].values)),
        minutes=tuple(sorted(parsed[1].values)),
        hours=tuple(sorted(parsed[2].values)),
        days=days.values,
        last_day=days.last,
        months=parsed[4].values,
        weekdays=weekdays.values,
        nth_weekdays=weekdays.nth,
        both_days=words[_MONTH_DAY].startswith("*") or words[_WEEKDAY].startswith("*"),
        real_time=any(word.startswith("*") for word in words[:3]),
    )


class _UnreadableError(Exception):
    """Why a field can't be read."""


def _unreadable(field: _Field, word: str, canon: str, error: _UnreadableError) -> InvalidTrigger:
    where = "" if word == canon else f" in {_quote(canon)}"
    return _invalid(f"can't read the {field.name} field {_quote(word)}{where}: {error}")


@dataclass(frozen=True)
class _Expanded:
    values: frozenset[int]
    last: bool = False
    nth: frozenset[tuple[int, int]] = frozenset()


def _canonical_field(field: _Field, word: str) -> str:
    if word == "?" and field.name.startswith("day"):
        return "*"
    tokens = [token.upper() if re.match(r"h(\W|$)", token) else token for token in word.split(",")]
    if field.name == "day-of-month":
        tokens = [re.sub(r"\bl$", "L", token) for token in tokens]
    if field.name == "day-of-week":
        tokens = [_canonical_last(token) for token in tokens]
    return ",".join(tokens)


def _canonical_last(token: str) -> str:
    """The last Friday as croniter spells it, `L5`, from `5L`, `friL` and `Lfri`."""
    for text in (token.removesuffix("l"), token.removeprefix("l")):
        day = _FIELDS[_WEEKDAY].value(text)
        if day is not None and len(text) == len(token) - 1:
            return f"L{day}"
    return token


@lru_cache(maxsize=4096)
def _expand(field: _Field, word: str) -> _Expanded:
    """One field as numbers, by croniter, with every other field left open."""
    index = _FIELDS.index(field)
    tokens = word.split(",")
    for token in tokens:
        if not re.fullmatch(r"[*\w#/?()-]+", token, re.ASCII):
            raise _UnreadableError(field.allowed)
        if token.startswith("H"):
            raise _UnreadableError(f"H is written as H, H({field.low}-{field.high}), H/2 or H({field.low}-{field.high})/2")
        if re.fullmatch(r"r(\(.*\))?(/.*)?", token):
            raise _UnreadableError("random values are not offered; H and `jitter` spread jobs")
        if re.search(r"/0+$", token):
            raise _UnreadableError("a step must be 1 or more")
        _check_step(field, token)
        if index == _MONTH_DAY and "w" in token:
            raise _UnreadableError("W, the nearest weekday, is not offered")
    if index == _WEEKDAY and len({bool(re.search("[#L]", token)) for token in tokens}) > 1:
        raise _UnreadableError("plain days and # or L do not mix; make them two jobs")
    # Five fields, with a second in the place of a minute: for six, croniter 6 takes day 0 and month 0 for 1.
    at = max(index - 1, 0)
    spelt = ["*"] * 5
    spelt[at] = ",".join(_spell_out(field, token) for token in tokens)
    try:
        expanded, nth = croniter.expand(" ".join(spelt))
    except (ValueError, AssertionError):  # croniter 6 asserts some of what it refuses
        raise _UnreadableError(field.allowed) from None
    values: list[int | str] = expanded[at]
    if nth:
        pairs = ((day, 0 if n == "l" else int(n)) for day, ns in nth.items() for n in ns)
        return _Expanded(frozenset(), nth=frozenset(pairs))
    if "*" in values:
        return _Expanded(frozenset(range(field.low, field.high + 1)))
    return _Expanded(frozenset(v for v in values if isinstance(v, int)), last="l" in values)


def _check_step(field: _Field, token: str) -> None:
    """Refuse a step that never steps: `*/90` in minutes is hourly, and whoever writes it means every 90 minutes.

    As long as its field it may be, for `*/60` and `15/60` do what they say. So may any step after one value alone: `5-5/2`.
    """
    body, _, step = token.partition("#")[0].partition("/")
    if not re.fullmatch("[0-9]+", step):
        return
    first, _, last = body.partition("-")
    low = field.value(first)
    high = field.value(last) if last else field.high
    if len(step) > 4 or int(step) > field.size:
        instead = f"timedelta({field.unit}={step})" if field.unit and len(step) < 4 else "..."
        raise _UnreadableError(f"the step is longer than the field, of {field.size}; for a period: @beat.every({instead})")
    if low is not None and high is not None and int(step) < field.size and 0 < (high - low) % field.size < int(step):
        raise _UnreadableError(f"its step gets no further than {first}; write {first} alone, or for a period: @beat.every(...)")


_ZONE = re.compile(r"[a-z_]+(/[a-z][a-z0-9_+-]*)+|utc|gmt|z|[+-]\d\d:\d\d")
_GO_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _zone_hint(line: str, zone: str) -> str:
    """How to say a time zone."""
    return f"it is an argument: @beat.cron({_quote(line)}, timezone={_quote(zone)})"


def _period(text: str) -> str:
    """The seconds of `5m` or `1h30m`, as Go writes them; `...` when it is something else."""
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,6})?)(ms|[smhd])", text)
    if not parts or "".join(map("".join, parts)) != text.strip():
        return "..."
    return f"{sum(float(number) * _GO_UNITS[unit] for number, unit in parts):.10g}"


def _spell_out(field: _Field, token: str) -> str:
    """A token that croniter would misread, as the list of its values; any other as it is."""
    body, mark, nth = token.partition("#")
    if match := re.fullmatch(r"(\w+)-(\w+)(?:/(\d{1,4}))?", body, re.ASCII):
        low, high, step = field.value(match[1]), field.value(match[2]), int(match[3] or 1)
    elif match := re.fullmatch(r"(\w+)/(\d{1,4})", body, re.ASCII):
        # `59/15` is minute 59; croniter before 7 read it as every quarter of an hour.
        low, step = field.value(match[1]), int(match[2])
        high = None if low is None else max(low, field.high)
    else:
        return token
    if low is None or high is None or step == 0:
        return token
    return ",".join(f"{value}{mark}{nth}" for value in field.between(low, high, step))


def never_fires(canon: str) -> InvalidTrigger:
    """The error for a line such as `0 0 30 2 *`."""
    return _invalid(f"{_quote(canon)} never fires: none of its months has such a day")


def _invalid(problem: str) -> InvalidTrigger:
    return InvalidTrigger("expression", problem)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
