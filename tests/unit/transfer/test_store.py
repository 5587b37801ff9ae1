from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from joinleaf.transfer.journal import Journal
from joinleaf.transfer.manifest import Entry, Manifest
from joinleaf.transfer.ranges import RangeSet
from joinleaf.transfer.store import FolderStore, StreamStore, clean_partials
from joinleaf.transfer.tree import Tree

ID = bytes(range(16))
FOLDER = Manifest("folder", "t", (Entry("t", True), Entry("t/a", size=4), Entry("t/b", size=4)))


@pytest.fixture(params=[True, False], ids=["by handle", "by path"])
def by_handle(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_symbolic_link_in_the_way_is_never_followed(tmp_path: Path, by_handle: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t").symlink_to(outside)
    store = FolderStore(tmp_path / "in", by_handle=by_handle)
    with pytest.raises(OSError, match=r".+"):
        store.begin(FOLDER, ID)
    assert list(outside.iterdir()) == []


def test_a_link_put_in_place_of_a_partial_file_is_never_written_through(
    tmp_path: Path, by_handle: bool
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    store = FolderStore(tmp_path / "in", by_handle=by_handle)
    store.begin(FOLDER, ID)
    store.write(0, 0, memoryview(b"ab"))
    store.close(complete=False)
    [part] = (tmp_path / "in" / "t").glob(".*.part")
    part.unlink()
    part.symlink_to(target)
    with pytest.raises(OSError, match=r".+"):
        store.write(0, 2, memoryview(b"cd"))
    assert target.read_bytes() == b"precious"


def test_files_get_their_names_only_when_finished(tmp_path: Path, by_handle: bool) -> None:
    store = FolderStore(tmp_path, by_handle=by_handle, durable=True)
    have, failed = store.begin(FOLDER, ID)
    assert (list(have), failed) == ([], {})
    store.write(0, 0, memoryview(b"abcd"))
    assert not (tmp_path / "t" / "a").exists()
    store.finish(0)
    assert (tmp_path / "t" / "a").read_bytes() == b"abcd"
    store.close(complete=True)
    assert [p.name for p in tmp_path.rglob(".*")] == []


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, by_handle: bool) -> None:
    store = FolderStore(tmp_path, by_handle=by_handle)
    store.begin(FOLDER, ID)
    store.write(0, 0, memoryview(b"abcd"))
    (tmp_path / "t" / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        store.finish(0)
    assert (tmp_path / "t" / "a").read_bytes() == b"mine"


def test_where_there_are_no_hard_links_nothing_is_overwritten_either(
    tmp_path: Path, by_handle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, no_links})
    tree = Tree(str(tmp_path), by_handle=by_handle)
    os.close(tree.open_new(("part",)))
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        tree.publish((), "part", "there", replace=False)
    tree.publish((), "part", "free", replace=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["free", "there"]


def test_a_second_start_finds_what_the_journal_and_the_files_bear_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.begin(FOLDER, ID)
    place = store.place
    store.write(0, 0, memoryview(b"abcd"))
    store.finish(0)
    store.write(1, 0, memoryview(b"xyz"))
    store.checkpoint(RangeSet([(0, 6)]))
    store.close(complete=False)
    again = FolderStore(tmp_path)
    have, _ = again.begin(FOLDER, ID)
    assert list(have) == [(0, 6)]
    assert again.place == place
    again.close(complete=False)
    [part] = (tmp_path / "t").glob(".b.*.part")
    part.write_bytes(b"x")  # shorter than the journal says
    have, _ = FolderStore(tmp_path).begin(FOLDER, ID)
    assert list(have) == [(0, 5)]


def test_a_journal_of_another_manifest_counts_for_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.begin(FOLDER, ID)
    store.write(1, 0, memoryview(b"xyz"))
    store.checkpoint(RangeSet([(4, 7)]))
    store.close(complete=False)
    other = Manifest("folder", "t", (Entry("t", True), Entry("t/a", size=4), Entry("t/b", size=9)))
    have, _ = FolderStore(tmp_path).begin(other, ID)
    assert list(have) == []


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x00" * 100])
def test_a_damaged_journal_counts_for_nothing(tmp_path: Path, data: bytes) -> None:
    tree = Tree(str(tmp_path))
    Journal(tree, "t", ID, b"m").save(RangeSet([(0, 9)]))
    [file] = tmp_path.iterdir()
    assert Journal(tree, "t", ID, b"m").resumed
    file.write_bytes(data)
    assert not Journal(tree, "t", ID, b"m").resumed


def test_unsuitable_names_fail_their_file_alone(tmp_path: Path) -> None:
    bad = Manifest("folder", "t", (Entry("t", True), Entry("t/a\\b", size=1), Entry("t/ok")))
    _, failed = FolderStore(tmp_path).begin(bad, ID)
    assert list(failed) == [0]
    assert "backslash" in failed[0]


@pytest.mark.parametrize("name", ["a/b", "C:x"])
def test_an_unsuitable_name_for_the_whole_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        FolderStore(tmp_path, name=name).begin(FOLDER, ID)


def test_another_name_can_be_given_to_the_whole(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, name="u")
    store.begin(FOLDER, ID)
    store.write(0, 0, memoryview(b"abcd"))
    store.finish(0)
    assert (tmp_path / "u" / "a").read_bytes() == b"abcd"
    store.close(complete=True)


def test_cleaning_removes_partial_files_of_other_objects_only(tmp_path: Path) -> None:
    for object_id in (ID, bytes(16)):
        store = FolderStore(tmp_path)
        store.begin(FOLDER, object_id)
        store.write(0, 0, memoryview(b"ab"))
        store.close(complete=False)
    (tmp_path / "t" / ".profile").write_bytes(b"mine")
    (tmp_path / ".u.0000000000000000.part").write_bytes(b"of another name")
    assert clean_partials(tmp_path, "t", keep=ID) == 2
    left = sorted(p.name for p in tmp_path.rglob(".*"))
    assert left == [
        ".a.0001020304050607.part",
        ".profile",
        ".t.0001020304050607.journal",
        ".u.0000000000000000.part",
    ]


def test_long_names_leave_room_for_what_is_put_around_them(tmp_path: Path) -> None:
    name = "é" * 127
    store = FolderStore(tmp_path)
    store.begin(Manifest("file", name, (Entry(name, size=1),)), ID)
    store.write(0, 0, memoryview(b"x"))
    store.finish(0)
    store.close(complete=True)
    assert (tmp_path / name).read_bytes() == b"x"


def test_permissions_are_those_of_a_new_file_under_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        store = FolderStore(tmp_path)
        store.begin(Manifest("file", "x", (Entry("x", executable=True),)), ID)
        store.finish(0)
        store.close(complete=True)
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o750


def test_a_stream_store_writes_in_order_and_cannot_read_back() -> None:
    out = io.BytesIO()
    store = StreamStore(out)
    store.write(0, 0, memoryview(b"ab"))
    store.write(0, 2, memoryview(b"cd"))
    store.finish(0)
    store.close(complete=True)
    assert out.getvalue() == b"abcd"
    assert store.read_into(0, 0, memoryview(bytearray(4))) == 0
    assert not store.discard(0)
