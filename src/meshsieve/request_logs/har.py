"""HAR, the archive format of browsers: requests with all their headers, and what was answered.

Source: HTTP Archive (HAR) 1.2. Pseudo headers, which some browsers list among the headers, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshsieve.errors import ModelError
from meshsieve.request import Request
from meshsieve.request_logs.access_fields import time_ns


def requests_of(document: Any) -> Iterator[Request | ModelError]:
    """Each entry, or why it is none.

    raises  ModelError for what is no HAR at all
    """
    log = document.get("log") if isinstance(document, Mapping) else None
    entries = log.get("entries") if isinstance(log, Mapping) else None
    if not isinstance(entries, list):
        raise ModelError("no HAR: it has no list log.entries")
    for entry in entries:
        try:
            yield _request(entry)
        except ModelError as error:
            yield error


def _request(entry: Any) -> Request:
    given = entry.get("request") if isinstance(entry, Mapping) else None
    if not isinstance(given, Mapping):
        raise ModelError("the entry has no request")
    method, url = given.get("method"), given.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        raise ModelError("method and url must be text")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise ModelError("the url is none of http or https")
    rest = rest.partition("#")[0]  # a fragment never leaves the browser
    ends = [i for i in (rest.find("/"), rest.find("?")) if i >= 0]
    authority, target = (rest, "") if not ends else (rest[: min(ends)], rest[min(ends) :])
    headers = [_header(h) for h in _list(given, "headers")]
    host = next((value for name, value in headers if name.lower() in (":authority", "host")), None)
    response = entry.get("response")
    status = response.get("status") if isinstance(response, Mapping) else None
    started = entry.get("startedDateTime")
    return Request(
        method=method,
        scheme=scheme.lower(),
        authority=host or authority,
        path=target if target.startswith("/") else "/" + target,
        headers=tuple((n, v) for n, v in headers if not n.startswith(":") and n.lower() != "host"),
        sni=authority.rpartition("@")[2].partition(":")[0] if scheme.lower() == "https" else None,
        time_ns=time_ns(started) if isinstance(started, str) else None,
        observed={"status": status} if isinstance(status, int) and status else {},
    )


def _list(given: Mapping[str, Any], key: str) -> list[Any]:
    value = given.get(key, [])
    if not isinstance(value, list):
        raise ModelError(f"{key} must be a list")
    return value


def _header(given: Any) -> tuple[str, str]:
    name, value = (given.get("name"), given.get("value")) if isinstance(given, Mapping) else (None, None)
    if not isinstance(name, str) or not isinstance(value, str):
        raise ModelError("a header must have a name and a value")
    return name, value
