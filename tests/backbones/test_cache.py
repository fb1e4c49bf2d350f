"""The cache folder."""

from pathlib import Path

import pytest

from featkit.backbones.cache import cache_folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"FEATKIT_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"FEATKIT_CACHE": "~/b"}, "/home/me/b"),
        ({"FEATKIT_CACHE": "", "XDG_CACHE_HOME": "/c"}, "/c/featkit"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/featkit"),
        ({}, "/home/me/.cache/featkit"),
    ],
)
def test_the_cache_is_where_the_user_wants_it(monkeypatch, variables, folder):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("FEATKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
        if name in variables:
            monkeypatch.setenv(name, variables[name])
    assert cache_folder() == Path(folder)
