from __future__ import annotations

import pytest

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer.names import MAX_DEPTH, check_path, unsuitable


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "nul\0byte",
        "\ud800",
        "x" * 256,
        "é" * 128,
        "/".join("a" * (MAX_DEPTH + 1)),
        "/".join(["x" * 200] * 30),
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(RemoteProtocolError):
        check_path(path)


def test_ordinary_paths_are_split() -> None:
    assert check_path("tree/sub dir/..hidden…") == ("tree", "sub dir", "..hidden…")


@pytest.mark.parametrize("part", ["a\\b", "..\\..\\x", "C:x", "c:", "tab\there", "\x7f"])
def test_names_that_are_safe_nowhere_are_unsuitable_everywhere(part: str) -> None:
    assert unsuitable(("tree", part), windows=False)
    assert unsuitable(("tree", part), windows=True)


@pytest.mark.parametrize("part", ["aux", "CON.txt", "com1", "LPT9.x", "nul ", "dot.", "q?", "ab:c"])
def test_names_that_windows_reserves_are_unsuitable_there_alone(part: str) -> None:
    assert unsuitable((part,), windows=True)
    assert not unsuitable((part,), windows=False)


def test_ordinary_names_are_suitable() -> None:
    assert not unsuitable(("auxiliary", "console.log", ".x", "comet"), windows=True)
