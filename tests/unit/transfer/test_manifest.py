from __future__ import annotations

import hashlib

import pytest

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire
from joinleaf.transfer.digests import new_digests
from joinleaf.transfer.manifest import (
    Entry,
    Layout,
    Manifest,
    ManifestBuilder,
    object_digest,
)

ID = bytes(16)


def rebuild(
    kind: str, name: str, entries: list[wire.WireEntry], *, max_bytes: int | None = None
) -> Manifest | None:
    offer = wire.Offer(ID, kind, name, len(entries))  # type: ignore[arg-type]  # hostile on purpose
    builder = ManifestBuilder(offer, max_files=1000, max_bytes=max_bytes)
    return builder.add(wire.Entries(ID, 0, entries))


def entry(path: str, size: int = 0, *, folder: bool = False) -> wire.WireEntry:
    return wire.WireEntry(path, folder, size, 0, False)


def test_a_manifest_of_several_pages_is_put_together_again() -> None:
    entries = (Entry("t", True), *(Entry(f"t/{n}", False, n, n) for n in range(2500)))
    manifest = Manifest("folder", "t", entries)
    offer, *pages = [wire.decode(message) for message in manifest.messages(ID, new_digests("gmac"))]
    assert isinstance(offer, wire.Offer)
    assert len(pages) == 3
    builder = ManifestBuilder(offer, max_files=3000)
    built = [builder.add(page) for page in pages if isinstance(page, wire.Entries)]
    assert built == [None, None, manifest]
    assert built[-1] is not None
    assert built[-1].digest() == manifest.digest()


@pytest.mark.parametrize(
    ("kind", "name", "entries"),
    [
        ("file", "../x", [entry("../x")]),
        ("file", "a/b", [entry("a/b")]),
        ("file", "x", [entry("y")]),
        ("file", "x", [entry("x", folder=True)]),
        ("stream", "x", [entry("x"), entry("x/y")]),
        ("folder", "t", [entry("t", folder=True), entry("t/../../x")]),
        ("folder", "t", [entry("t", folder=True), entry("t/a"), entry("t/a")]),
        ("folder", "t", [entry("t", folder=True), entry("t/a"), entry("t/a/b")]),
        ("folder", "t", [entry("t", folder=True), entry("t/missing/b")]),
        ("folder", "t", [entry("t", 5, folder=True)]),
        ("folder", "t", [entry("t", folder=True), entry("t/a", wire.MAX_POSITION)]),
    ],
)
def test_a_hostile_offer_is_refused(kind: str, name: str, entries: list[wire.WireEntry]) -> None:
    with pytest.raises(RemoteProtocolError):
        rebuild(kind, name, entries)


def test_pages_out_of_order_are_refused() -> None:
    builder = ManifestBuilder(wire.Offer(ID, "folder", "t", 2), max_files=10)
    with pytest.raises(RemoteProtocolError):
        builder.add(wire.Entries(ID, 1, [entry("t", folder=True)]))


def test_limits_of_the_receiver_are_no_fault_of_the_root() -> None:
    with pytest.raises(ValueError, match="exceed the 10"):
        ManifestBuilder(wire.Offer(ID, "folder", "t", 11), max_files=10)
    with pytest.raises(ValueError, match="limit of 99 bytes"):
        rebuild("file", "x", [entry("x", 100)], max_bytes=99)


def test_all_bytes_lie_on_one_line_and_empty_files_take_no_room() -> None:
    sizes = [10, 0, 5]
    layout = Layout(Manifest("folder", "t", tuple(Entry(f"t/{n}", size=n) for n in sizes)))
    assert layout.end == 15
    assert [layout.span(index) for index in range(3)] == [(0, 10), (10, 10), (10, 15)]
    assert layout.locate(9) == (0, 9)
    assert layout.locate(10) == (2, 0)


def test_the_object_digest_is_over_file_digests_with_zeros_for_failed_ones() -> None:
    one, two = (hashlib.sha256(data).digest() for data in (b"1", b"2"))
    assert object_digest([one, two]) == hashlib.sha256(one + two).digest()
    assert object_digest([one, None]) == hashlib.sha256(one + bytes(32)).digest()
    assert object_digest([one, two], [1]) == object_digest([one, None])
