"""Schedules: when a policy is in force, as sets of the fields ``time`` and ``week_minute``.

A PolicyFirewallScheduler holds from the start to the end date, both included; with ``recurring`` on its days and in its
daily intervals only, else from the start time of the first day to the end time of the last. Times are UTC, or with
timezone LOCAL those of the hosts, which the option ``time_zone`` names: the schedule is then one alternative for each
offset that the zone has had or will have, in force while it has it.
Source  NSX schema text PolicyFirewallScheduler; time zones: the IANA database, by way of Python's zoneinfo.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.fields import Fields
from meshsieve.model import Match, ValueSet

_DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_DAY_SECONDS = 86_400
_END = 2**32 - 1


def schedule_alternatives(obj: Object, label: str, time_zone: str = "") -> tuple[Match, ...]:
    """When the schedule is in force, as a disjunction.

    time_zone  IANA name of the hosts' zone, "" = not known
    raises     PolicyError
    """
    f = Fields(obj, "PolicyFirewallScheduler", label)
    local = f.choice("timezone", ("UTC", "LOCAL"), "UTC") == "LOCAL"
    zone = _zone(f, time_zone) if local else UTC
    recurring = f.flag("recurring")
    first, last = _day(f, "start_date"), _day(f, "end_date")
    start_time, end_time = _minutes(f, "start_time"), _minutes(f, "end_time")
    start = 0 if first is None else _instant(first, 0 if recurring else start_time or 0, zone)
    if last is None:
        end = _END
    elif recurring or end_time is None:
        end = _instant(last + timedelta(days=1), 0, zone) - 1
    else:
        end = _instant(last, end_time, zone)
    if end < start:
        f.fail("the schedule ends before it starts", "end_date", hint="correct the dates")
    days = [day.upper() for day in f.texts("days")]
    if unknown := [day for day in days if day not in _DAYS]:
        f.fail(f"'{unknown[0]}' is no day of the week", "days")
    intervals = [_interval(part, label) for part in f.objects("time_interval")]
    f.finish()
    span = ValueSet.numbers((max(start, 0), min(end, _END)))
    when = {} if (start, end) == (0, _END) else {"time": span}
    if not (recurring and (days or intervals)):
        return (when,)
    minutes = [
        (_DAYS.index(day) * _DAY_MINUTES + low, _DAYS.index(day) * _DAY_MINUTES + high)
        for day in days or _DAYS
        for low, high in intervals or [(0, _DAY_MINUTES - 1)]
    ]
    if not local:
        return ({**when, "week_minute": ValueSet.numbers(*minutes)},)
    found = []
    for offset, times in _offsets(zone):
        if shared := times.intersection(span):
            found.append({"time": shared, "week_minute": _shifted(minutes, -offset)})
    return tuple(found)


def _zone(f: Fields, name: str) -> tzinfo:
    if not name:
        f.fail(
            "the schedule is in the hosts' own time zone", "timezone",
            hint="name it with the option time_zone, or import with --lenient: its rules are then undecided",
        )  # fmt: skip
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PolicyError(f"no time zone is called '{name}': {error}", hint="for example Europe/Berlin") from None


def _instant(day: datetime, minutes: int, zone: tzinfo) -> int:
    """Seconds since 1970 of a wall clock; of one that comes twice, the first."""
    return int((day + timedelta(minutes=minutes)).replace(tzinfo=zone).timestamp())


@lru_cache(maxsize=8)
def _offsets(zone: tzinfo) -> tuple[tuple[int, ValueSet], ...]:
    """Every offset of the zone from UTC, in minutes, and when it holds between 1970 and the end of ``time``."""

    def offset(second: int) -> int:
        shift = datetime.fromtimestamp(second, zone).utcoffset() or timedelta()
        return int(shift.total_seconds()) // 60

    spans: dict[int, list[tuple[int, int]]] = {}
    begin, now = 0, offset(0)
    for second in range(_DAY_SECONDS, _END + _DAY_SECONDS, _DAY_SECONDS):
        day_end = min(second, _END)
        then = offset(day_end)
        if then != now:
            low, high = day_end - _DAY_SECONDS, day_end  # the change lies in (low, high]
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == now else (low, middle)
            spans.setdefault(now, []).append((begin, high - 1))
            begin, now = high, then
    spans.setdefault(now, []).append((begin, _END))
    return tuple((shift, ValueSet.numbers(*listed)) for shift, listed in spans.items())


def _shifted(minutes: list[tuple[int, int]], by: int) -> ValueSet:
    """Minutes of the week moved round the week."""
    out = []
    for low, high in minutes:
        start = (low + by) % _WEEK_MINUTES
        end = start + high - low
        out.append((start, min(end, _WEEK_MINUTES - 1)))
        if end >= _WEEK_MINUTES:
            out.append((0, end - _WEEK_MINUTES))
    return ValueSet.numbers(*out)


def _day(f: Fields, key: str) -> datetime | None:
    text = f.text(key)
    if not text:
        return None
    found = _DATE.fullmatch(text)
    try:
        if found is None:
            raise ValueError("write MM/DD/YYYY")
        return datetime(int(found[3]), int(found[1]), int(found[2]), tzinfo=UTC)
    except ValueError as error:
        f.fail(f"'{text}' is no date: {error}", key, hint="correct the date")
        return None


def _minutes(f: Fields, key: str) -> int | None:
    text = f.text(key)
    if not text:
        return None
    found = _TIME.fullmatch(text)
    if found is None or int(found[1]) * 60 + int(found[2]) > _DAY_MINUTES or int(found[2]) > 59:
        raise PolicyError(f"'{text}' is no time of day", where=f.obj.where(key), obj=f.label, hint="write hh:mm")
    return int(found[1]) * 60 + int(found[2])


def _interval(part: Object, label: str) -> tuple[int, int]:
    f = Fields(part, "time_interval", label)
    low, high = _minutes(f, "start_interval"), _minutes(f, "end_interval")
    f.finish()
    if low is None or high is None or high <= low:
        raise PolicyError("an interval of a day must rise", where=part.where(), obj=label, hint="correct it")
    return low, high - 1
