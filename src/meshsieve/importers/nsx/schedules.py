"""Schedules: when a policy is in force, as sets of the fields ``time`` and ``week_minute``.

A PolicyFirewallScheduler holds from the start to the end date, both included; with ``recurring`` on its days and in its
daily intervals only, else from the start time of the first day to the end time of the last. Times are UTC: with
timezone LOCAL they are those of each host, which nobody knows offline.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.fields import LENIENT_HINT, Fields
from meshsieve.model import Match, ValueSet

_DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_DAY_MINUTES = 24 * 60
_END = 2**32 - 1


def schedule_match(obj: Object, label: str) -> Match:
    """raises  PolicyError"""
    f = Fields(obj, "PolicyFirewallScheduler", label)
    if f.choice("timezone", ("UTC", "LOCAL"), "UTC") == "LOCAL":
        f.fail("the schedule is in each host's own time zone", "timezone", hint=LENIENT_HINT)
    recurring = f.flag("recurring")
    first, last = _day(f, "start_date"), _day(f, "end_date")
    start = 0 if first is None else int(first.timestamp())
    end = _END if last is None else int((last + timedelta(days=1)).timestamp()) - 1
    start_time, end_time = _minutes(f, "start_time"), _minutes(f, "end_time")
    if not recurring and first is not None and start_time is not None:
        start += 60 * start_time
    if not recurring and last is not None and end_time is not None:
        end = int(last.timestamp()) + 60 * end_time
    if end < start:
        f.fail("the schedule ends before it starts", "end_date", hint="correct the dates")
    days = [day.upper() for day in f.texts("days")]
    if unknown := [day for day in days if day not in _DAYS]:
        f.fail(f"'{unknown[0]}' is no day of the week", "days")
    intervals = [_interval(part, label) for part in f.objects("time_interval")]
    f.finish()
    match: dict[str, ValueSet] = {}
    if (start, end) != (0, _END):
        match["time"] = ValueSet.numbers((max(start, 0), min(end, _END)))
    if recurring and (days or intervals):
        minutes = [
            (_DAYS.index(day) * _DAY_MINUTES + low, _DAYS.index(day) * _DAY_MINUTES + high)
            for day in days or _DAYS
            for low, high in intervals or [(0, _DAY_MINUTES - 1)]
        ]
        match["week_minute"] = ValueSet.numbers(*minutes)
    return match


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
