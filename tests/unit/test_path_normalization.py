"""Path normalisation, one rule a row; every expected path was seen on Envoy 1.40.0 (normalize_path)."""

from __future__ import annotations

import pytest

from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, Refusal, view

BASE = HttpOptions(normalize_path=True)
MERGE = HttpOptions(normalize_path=True, merge_slashes=True)
DECODE = HttpOptions(normalize_path=True, merge_slashes=True, path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD")

PATHS = [
    #  what it shows                                          options  sent               seen
    ("dot segments are removed", BASE, "/a/./b/../c", "/a/c"),
    ("a last dot segment leaves its slash", BASE, "/a/..", "/"),
    ("above the root there is nothing", BASE, "/../../a", "/a"),
    ("empty segments count", BASE, "/a//../b", "/a/b"),
    ("parameters of a dot segment are dropped with it", BASE, "/a/..;x/b", "/b"),
    ("... but not where the dot was written as a code", BASE, "/a/%2e;x/b", "/a/.;x/b"),
    ("... nor behind a backslash", BASE, "/a\\..;x", "/a/..;x"),
    ("codes of unreserved characters are decoded", BASE, "/%41%2e%7E", "/A.~"),
    ("codes of others stay as written", BASE, "/%2f%2F%5c", "/%2f%2F%5c"),
    ("a decoded dot segment is removed", BASE, "/a/%2E%2e/b", "/b"),
    ("a backslash is a slash", BASE, "/a\\b", "/a/b"),
    ("characters that no path may hold are encoded", BASE, '/"<>^`{|}', "/%22%3C%3E%5E%60%7B%7C%7D"),
    ("brackets stay", BASE, "/[a]", "/[a]"),
    ("an incomplete code stays", BASE, "/%zz%", "/%zz%"),
    ("a code that decoding would complete is kept from it", BASE, "/%2%41", "/%252A"),
    ("... also where a raw character would complete it", BASE, "/%%41E", "/%25AE"),
    ("the query is left alone", BASE, "/a?/../%41", "/a?/../%41"),
    ("slashes are merged", MERGE, "/a//b///c", "/a/b/c"),
    ("escaped slashes stay with merging alone", MERGE, "/a%2Fb", "/a%2Fb"),
    ("escaped slashes and backslashes are decoded", DECODE, "/a%2Fb%5Cc//d", "/a/b/c/d"),
]


@pytest.mark.parametrize(("says", "options", "sent", "seen"), PATHS, ids=[row[0] for row in PATHS])
def test_normalized(says, options, sent, seen):
    found = view(Request(path=sent, authority="h"), options)
    assert not isinstance(found, Refusal)
    assert found.target.decode() == seen


@pytest.mark.parametrize("sent", ["/%00", "a", "/é", "/a#b"])
def test_what_cannot_be_normalized_is_answered_400(sent):
    found = view(Request(path=sent, authority="h"), BASE)
    assert isinstance(found, Refusal)
    assert found.status == 400
