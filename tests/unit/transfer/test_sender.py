"""The whole engine, root and leaves, over a session in memory."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from joinleaf.errors import TransferError
from joinleaf.transfer import LeafState, PathSource, SendProgress, StreamSource, wire
from joinleaf.transfer.assembly import Phase
from joinleaf.transfer.digests import DIGESTS, DigestKind
from joinleaf.transfer.source import SourceFileError
from joinleaf.transfer.store import FolderStore, StreamStore

if TYPE_CHECKING:
    from tests.unit.transfer.conftest import World

CHUNK = 1024
OTHER = bytes(range(16, 32))


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that differ from place to place, so that a shifted or swapped piece shows."""
    block = hashlib.shake_256(str(seed).encode()).digest(min(size, 4096) or 1)
    return (block * (size // len(block) + 1))[:size]


def make_file(folder: Path, size: int = 100 * CHUNK, name: str = "big.iso") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content(size))
    return path


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob(".*"))


@pytest.mark.parametrize("kind", DIGESTS)
def test_every_leaf_of_a_session_gets_the_file_and_is_verified(
    world: World, tmp_path: Path, kind: DigestKind
) -> None:
    path = make_file(tmp_path / "src", 10 * CHUNK + 7)
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    for name in ("a", "b", "c"):
        world.start(name, tmp_path / name)
    result = world.send(path, leaves=3, digest=kind)
    assert result.ok
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED] * 3
    assert result.digest_kind == result.as_dict()["digest_kind"] == kind
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.sha256 == (sha256 if kind == "sha256" else "")
    for name in ("a", "b", "c"):
        copy = tmp_path / name / "big.iso"
        assert copy.read_bytes() == path.read_bytes()
        assert copy.stat().st_mtime_ns == 1_700_000_000_123_456_789
        assert leftovers(tmp_path / name) == []
    assert all(leaf.assembly.acknowledged for leaf in world.members.values())


def test_what_everybody_wants_is_sent_once_to_everybody(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src")
    for name in ("a", "b", "c"):
        world.start(name, tmp_path / name)
    result = world.send(path, leaves=3)
    data = [to for to, messages in world.sends if any(isinstance(m, wire.Chunk) for m in messages)]
    assert data
    assert set(data) == {None}
    assert result.bytes_sent == 100 * CHUNK


def test_an_empty_file_arrives(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src", 0)
    world.start("a", tmp_path / "a")
    assert world.send(path).ok
    assert (tmp_path / "a" / "big.iso").read_bytes() == b""


def test_a_folder_arrives_with_empty_folders_and_executable_bits(
    world: World, tmp_path: Path
) -> None:
    top = tmp_path / "src" / "tree"
    (top / "empty" / "deeper").mkdir(parents=True)
    (top / "sub").mkdir()
    (top / "sub" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (top / "sub" / "run.sh").chmod(0o4755)
    (top / "data").write_bytes(content(3 * CHUNK + 1))
    (top / "none").write_bytes(b"")
    (top / "link").symlink_to("data")
    world.start("a", tmp_path / "a")
    result = world.send(top)
    assert result.ok
    assert result.notices == ("tree/link: a symbolic link; left out",)
    copy = tmp_path / "a" / "tree"
    assert (copy / "empty" / "deeper").is_dir()
    assert (copy / "data").read_bytes() == content(3 * CHUNK + 1)
    assert (copy / "none").read_bytes() == b""
    assert not (copy / "link").exists()
    mode = (copy / "sub" / "run.sh").stat().st_mode
    assert mode & stat.S_IXUSR
    assert not mode & stat.S_ISUID
    assert not (copy / "data").stat().st_mode & stat.S_IXUSR


def test_a_folder_without_files_is_verified(world: World, tmp_path: Path) -> None:
    (tmp_path / "src" / "tree" / "empty").mkdir(parents=True)
    world.start("a", tmp_path / "a")
    assert world.send(tmp_path / "src" / "tree").ok
    assert (tmp_path / "a" / "tree" / "empty").is_dir()


def test_a_late_leaf_takes_what_comes_by_and_then_gets_what_it_missed(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    world.start("a", tmp_path / "a")
    world.after_chunks(60, lambda: world.start("late", tmp_path / "late"))
    result = world.send(path)
    assert result.ok
    assert [leaf.name for leaf in result.leaves] == ["a", "late"]
    assert (tmp_path / "late" / "big.iso").read_bytes() == path.read_bytes()
    a, late = world.members.values()
    assert a.chunk_bytes == 100 * CHUNK
    assert late.chunk_bytes == 100 * CHUNK
    assert result.bytes_sent < 200 * CHUNK  # the second half went to both at once


def test_a_killed_leaf_comes_back_and_is_sent_only_what_is_missing(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    stays = world.start("stays", tmp_path / "stays")
    victim = world.start("victim", tmp_path / "victim")

    def restart() -> None:
        victim.assembly.checkpoint(world.now_ns)
        world.kill(victim)
        world.start("victim", tmp_path / "victim")

    world.after_chunks(40, restart)
    result = world.send(path, leaves=2)
    assert result.ok
    back = list(world.members.values())[-1]
    held = back.assembly.resumed
    assert 30 * CHUNK <= held <= 40 * CHUNK
    assert back.chunk_bytes == 100 * CHUNK - held
    assert stays.chunk_bytes == 100 * CHUNK
    assert (tmp_path / "victim" / "big.iso").read_bytes() == path.read_bytes()
    assert leftovers(tmp_path / "victim") == []
    assert [(leaf.name, leaf.returns) for leaf in result.leaves] == [("stays", 0), ("victim", 1)]


def test_a_restarted_root_with_the_same_object_id_resumes_the_leaf(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    first = world.start("a", tmp_path / "a")
    cancel = threading.Event()
    world.after_chunks(50, cancel.set)
    assert world.send(path, cancel=cancel).cancelled
    first.assembly.checkpoint(world.now_ns)
    world.kill(first)
    again = world.start("a", tmp_path / "a")
    assert world.send(path).ok
    assert 0 < again.chunk_bytes == 100 * CHUNK - again.assembly.resumed < 100 * CHUNK


def test_a_partial_file_of_another_object_id_is_never_mixed_in(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    first = world.start("a", tmp_path / "a")
    cancel = threading.Event()
    world.after_chunks(50, cancel.set)
    assert world.send(path, cancel=cancel, object_id=OTHER).cancelled
    first.assembly.checkpoint(world.now_ns)
    world.kill(first)
    path.write_bytes(content(100 * CHUNK, seed=2))
    fresh = world.start("a", tmp_path / "a")
    assert world.send(path).ok
    assert fresh.chunk_bytes == 100 * CHUNK
    assert fresh.assembly.resumed == 0
    assert (tmp_path / "a" / "big.iso").read_bytes() == content(100 * CHUNK, seed=2)
    assert len(leftovers(tmp_path / "a")) == 2  # the other object's, left alone
    world.kill(fresh)
    (tmp_path / "a" / "big.iso").unlink()
    world.start("a", tmp_path / "a", clean=True)
    assert world.send(path).ok
    assert leftovers(tmp_path / "a") == []


def test_a_damaged_partial_file_is_found_out_and_fetched_again(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    victim = world.start("a", tmp_path / "a")

    def damage() -> None:
        victim.assembly.checkpoint(world.now_ns)
        world.kill(victim)
        [part] = (tmp_path / "a").glob(".*.part")
        with part.open("r+b") as file:
            file.write(b"not what was sent")
        world.start("a", tmp_path / "a")

    world.after_chunks(40, damage)
    assert world.send(path).ok
    assert (tmp_path / "a" / "big.iso").read_bytes() == path.read_bytes()


class FullDisk(FolderStore):
    """Has room for so many bytes."""

    room = 20 * CHUNK

    def write(self, index: int, offset: int, data: memoryview) -> None:
        if offset + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(index, offset, data)


def test_a_full_disk_fails_that_leaf_alone_with_its_reason(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src")
    world.start("good", tmp_path / "good")
    full = world.start("full", FullDisk(tmp_path / "full"))
    result = world.send(path, leaves=2)
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED, LeafState.FAILED]
    assert result.leaves[1].reason == os.strerror(errno.ENOSPC)
    assert not result.ok
    assert full.chunk_bytes < 30 * CHUNK  # nothing more is sent to it
    assert not (tmp_path / "full" / "big.iso").exists()
    with pytest.raises(TransferError, match="No space left"):
        result.check()


class Liar(FolderStore):
    """A disk that gives back other bytes than were written, so that nothing ever fits."""

    def read_into(self, index: int, offset: int, view: memoryview) -> int:
        count = super().read_into(index, offset, view)
        view[:count] = bytes(count)
        return count


def test_a_wrong_digest_fails_that_leaf_alone_after_one_more_try(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src", 10 * CHUNK)
    world.start("good", tmp_path / "good")
    # It joins late and so has to read back what did not come in order.
    world.after_chunks(5, lambda: world.start("liar", Liar(tmp_path / "liar")))
    result = world.send(path)
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED, LeafState.FAILED]
    assert "digest differs" in result.leaves[1].reason
    liar = list(world.members.values())[-1]
    assert 10 * CHUNK < liar.chunk_bytes <= 20 * CHUNK
    assert leftovers(tmp_path / "liar") == []


def test_a_leaf_that_claims_more_than_it_has_is_not_believed(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src", 10 * CHUNK)
    leaf = world.start("a", tmp_path / "a")
    leaf.mute = True

    def lie() -> None:
        report = wire.Report(bytes(range(16)), bytes(32), "", 0, [])
        world.to_root.append((leaf.handle.address, [wire.encode(report)]))

    want = wire.Want(bytes(range(16)), bytes(16), False, [], True)
    world.to_root.append((leaf.handle.address, [wire.encode(want)]))
    world.after_chunks(10, lambda: world.after(0.1, lie))
    result = world.send(path)
    assert result.leaves[0].state is LeafState.FAILED
    assert result.leaves[0].reason == "its digest differs from the root's"


def test_a_file_that_exists_is_not_overwritten_unless_told(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src")
    for name in ("keep", "replace"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "big.iso").write_bytes(b"mine")
    world.start("keep", tmp_path / "keep")
    world.start("replace", tmp_path / "replace", overwrite=True)
    result = world.send(path, leaves=2)
    assert [leaf.state for leaf in result.leaves] == [LeafState.FAILED, LeafState.VERIFIED]
    assert "exists already" in result.leaves[0].reason
    assert result.leaves[0].failures[0].path == "big.iso"
    assert (tmp_path / "keep" / "big.iso").read_bytes() == b"mine"
    assert (tmp_path / "replace" / "big.iso").read_bytes() == path.read_bytes()


def test_a_file_that_is_there_already_with_the_right_content_is_not_sent(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    make_file(tmp_path / "has")
    has = world.start("has", tmp_path / "has")
    assert world.send(path).ok
    assert has.chunk_bytes == 0


def test_one_of_the_same_size_with_other_content_is_kept_or_replaced_as_told(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src", 10 * CHUNK)
    for name in ("keep", "replace"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "big.iso").write_bytes(content(10 * CHUNK, seed=9))
    world.start("keep", tmp_path / "keep")
    world.start("replace", tmp_path / "replace", overwrite=True)
    result = world.send(path, leaves=2)
    assert [leaf.state for leaf in result.leaves] == [LeafState.FAILED, LeafState.VERIFIED]
    assert (tmp_path / "keep" / "big.iso").read_bytes() == content(10 * CHUNK, seed=9)
    assert (tmp_path / "replace" / "big.iso").read_bytes() == path.read_bytes()


class Unreadable(PathSource):
    """Root reads everything, so a refusal has to be played."""

    refuse = "tree/b"

    def read_into(self, index: int, offset: int, view: memoryview) -> None:
        if self.manifest.files[index].path == self.refuse:
            raise SourceFileError("cannot be read: Permission denied")
        super().read_into(index, offset, view)


def make_tree(folder: Path) -> Path:
    top = folder / "tree"
    top.mkdir(parents=True)
    for seed, name in enumerate("abc"):
        (top / name).write_bytes(content(3 * CHUNK, seed))
    return top


def test_an_unreadable_file_fails_by_itself_and_the_others_go_on(
    world: World, tmp_path: Path
) -> None:
    world.start("x", tmp_path / "x")
    result = world.send(Unreadable(make_tree(tmp_path / "src")))
    assert not result.ok
    assert [(f.path, f.reason) for f in result.failures] == [
        ("tree/b", "cannot be read: Permission denied")
    ]
    assert result.leaves[0].state is LeafState.VERIFIED
    assert sorted(p.name for p in (tmp_path / "x" / "tree").iterdir()) == ["a", "c"]


def test_a_file_that_vanishes_or_changes_while_sending_fails_by_itself(
    world: World, tmp_path: Path
) -> None:
    top = make_tree(tmp_path / "src")
    source = PathSource(top)
    (top / "b").unlink()
    world.after_chunks(4, lambda: (top / "c").write_bytes(content(3 * CHUNK, 7)))
    world.start("x", tmp_path / "x")
    result = world.send(source, rate=1e9)
    assert [(f.path, f.reason) for f in result.failures] == [
        ("tree/b", "cannot be read: No such file or directory"),
        ("tree/c", "it changed while being sent"),
    ]
    assert (tmp_path / "x" / "tree" / "a").read_bytes() == content(3 * CHUNK, 0)
    assert sorted(p.name for p in (tmp_path / "x" / "tree").iterdir()) == ["a"]


def test_a_file_that_changes_after_some_had_it_fails_only_those_who_lack_it(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    world.start("early", tmp_path / "early")
    world.after_chunks(50, lambda: world.start("late", tmp_path / "late"))
    world.after_chunks(102, lambda: path.write_bytes(content(100 * CHUNK, seed=5)))
    result = world.send(path)
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED, LeafState.FAILED]
    assert "changed while being sent" in result.leaves[1].reason
    assert not (tmp_path / "late" / "big.iso").exists()


def test_a_stream_of_unknown_length_arrives_and_late_leaves_catch_up(
    world: World, tmp_path: Path
) -> None:
    data = content(300 * CHUNK)
    world.start("a", tmp_path / "a")
    world.after_chunks(30, lambda: world.start("late", tmp_path / "late"))
    source = StreamSource(io.BytesIO(data), name="dump")
    result = world.send(source)
    source.close()
    assert result.ok
    assert result.kind == "stream"
    assert result.size == len(data)
    for name in ("a", "late"):
        assert (tmp_path / name / "dump").read_bytes() == data


def test_an_empty_stream_arrives(world: World, tmp_path: Path) -> None:
    world.start("a", tmp_path / "a")
    assert world.send(io.BytesIO(b"")).ok
    assert (tmp_path / "a" / "stream").read_bytes() == b""


class Breaking(io.RawIOBase):
    """A pipe that breaks off after a while."""

    def __init__(self) -> None:
        self.left = 5

    def read(self, size: int = -1) -> bytes:
        if self.left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.left -= 1
        return content(CHUNK)


def test_a_stream_that_breaks_off_fails_with_its_reason(world: World, tmp_path: Path) -> None:
    world.start("a", tmp_path / "a")
    result = world.send(Breaking())
    assert not result.ok
    assert "cannot be read" in result.failures[0].reason
    assert list((tmp_path / "a").iterdir()) == []


def test_a_late_leaf_that_writes_to_a_pipe_gets_everything_in_order(
    world: World, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "src")
    out = io.BytesIO()
    world.start("a", tmp_path / "a")
    world.after_chunks(40, lambda: world.start("pipe", StreamStore(out)))
    assert world.send(path).ok
    assert out.getvalue() == path.read_bytes()


def test_a_folder_is_refused_by_a_leaf_that_writes_to_a_pipe(world: World, tmp_path: Path) -> None:
    world.start("pipe", StreamStore(io.BytesIO()))
    result = world.send(make_tree(tmp_path / "src"))
    assert result.leaves[0].state is LeafState.FAILED
    assert "cannot be written to a stream" in result.leaves[0].reason


def test_it_waits_for_the_number_of_leaves(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src")
    world.start("a", tmp_path / "a")
    world.after(100, lambda: world.start("b", tmp_path / "b"))
    result = world.send(path, leaves=2)
    assert result.ok
    assert world.now_ns >= 100e9
    assert result.bytes_sent == 100 * CHUNK


def test_max_wait_ends_the_waiting_and_counts_who_never_came(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src")
    world.start("a", tmp_path / "a")
    result = world.send(path, leaves=3, max_wait=10)
    assert 11e9 <= world.now_ns < 12e9
    assert result.leaves[0].ok
    assert result.absent == 2
    assert not result.ok


def test_without_any_leaf_max_wait_ends_it(world: World, tmp_path: Path) -> None:
    result = world.send(make_file(tmp_path / "src"), max_wait=1)
    assert (result.leaves, result.absent, result.ok) == ((), 1, False)


def test_start_now_ends_the_waiting_and_waives_the_number(world: World, tmp_path: Path) -> None:
    start_now = threading.Event()
    world.start("a", tmp_path / "a")
    world.after(5, start_now.set)
    result = world.send(make_file(tmp_path / "src"), leaves=30, start_now=start_now)
    assert result.ok
    assert result.absent == 0


def test_a_leaf_that_vanishes_never_blocks_the_end(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "src")
    world.start("a", tmp_path / "a")
    b = world.start("b", tmp_path / "b")
    world.after_chunks(50, lambda: world.kill(b))
    result = world.send(path, leaves=2)
    assert [(leaf.state, leaf.reason) for leaf in result.leaves] == [
        (LeafState.VERIFIED, ""),
        (LeafState.GONE, "lost"),
    ]


def test_when_all_leaves_are_gone_it_ends_without_reading_on(world: World, tmp_path: Path) -> None:
    a = world.start("a", tmp_path / "a")
    world.after_chunks(10, lambda: world.kill(a))
    result = world.send(make_file(tmp_path / "src"))
    assert result.leaves[0].state is LeafState.GONE
    assert world.chunks_sent < 20


def test_linger_waits_for_a_leaf_that_is_gone_to_come_back(world: World, tmp_path: Path) -> None:
    a = world.start("a", tmp_path / "a")
    world.after_chunks(10, lambda: world.kill(a))
    world.after_chunks(10, lambda: world.after(20, lambda: world.start("a", tmp_path / "a")))
    result = world.send(make_file(tmp_path / "src"), linger=30)
    assert result.ok
    assert result.leaves[0].returns == 1


def test_a_silent_leaf_fails_after_the_stall_timeout_and_nobody_waits_longer(
    world: World, tmp_path: Path
) -> None:
    world.start("a", tmp_path / "a")
    b = world.start("b", tmp_path / "b")
    world.after_chunks(50, lambda: setattr(b, "frozen", True))
    result = world.send(make_file(tmp_path / "src"), leaves=2)
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED, LeafState.FAILED]
    assert "nothing heard for 5 s" in result.leaves[1].reason
    assert 5e9 < world.now_ns < 10e9


def test_a_frozen_leaf_without_room_holds_the_others_up_only_until_the_stall_timeout(
    world: World, tmp_path: Path
) -> None:
    world.inbox_limit = 5
    world.start("a", tmp_path / "a")
    b = world.start("b", tmp_path / "b")
    world.after_chunks(50, lambda: setattr(b, "frozen", True))
    result = world.send(make_file(tmp_path / "src"), leaves=2)
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED, LeafState.FAILED]
    assert 5e9 < world.now_ns < 12e9


def test_a_leaf_that_lives_but_never_gets_further_fails(world: World, tmp_path: Path) -> None:
    leaf = world.start("a", tmp_path / "a")
    leaf.mute = True
    want = wire.Want(bytes(range(16)), bytes(16), False, [], True)
    world.to_root.append((leaf.handle.address, [wire.encode(want)]))

    def alive() -> None:
        status = wire.Status(bytes(range(16)), 7, 0, False)
        world.to_root.append((leaf.handle.address, [wire.encode(status)]))
        world.after(1, alive)

    alive()
    result = world.send(make_file(tmp_path / "src"))
    assert result.leaves[0].reason == "no progress for 5 s"


def test_a_leaf_that_lives_but_never_says_what_it_wants_fails(world: World, tmp_path: Path) -> None:
    leaf = world.start("a", tmp_path / "a")
    leaf.mute = True

    def alive() -> None:
        status = wire.Status(bytes(range(16)), 0, 0, False)
        world.to_root.append((leaf.handle.address, [wire.encode(status)]))
        world.after(1, alive)

    alive()
    result = world.send(make_file(tmp_path / "src"), max_wait=1)
    assert result.leaves[0].reason == "no answer to the offer for 5 s"


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "C:x", "a\\b", "nul\0"])
def test_a_name_that_no_receiver_could_keep_is_the_senders_mistake(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="no name to keep it under"):
        PathSource(make_file(tmp_path / "src"), name=name)


def test_a_leaf_that_breaks_the_protocol_fails_alone(world: World, tmp_path: Path) -> None:
    world.start("a", tmp_path / "a")
    b = world.start("b", tmp_path / "b")
    world.after_chunks(20, lambda: world.to_root.append((b.handle.address, [b"\xff garbage"])))
    result = world.send(make_file(tmp_path / "src"), leaves=2)
    assert [leaf.state for leaf in result.leaves] == [LeafState.VERIFIED, LeafState.FAILED]
    assert result.leaves[1].reason.startswith("protocol error")


def test_cancel_tells_the_leaves_and_keeps_their_partial_files(
    world: World, tmp_path: Path
) -> None:
    cancel = threading.Event()
    leaf = world.start("a", tmp_path / "a")
    world.after_chunks(50, cancel.set)
    result = world.send(make_file(tmp_path / "src"), cancel=cancel)
    assert result.cancelled
    assert not result.ok
    assert leaf.assembly.phase is Phase.DONE
    assert leaf.assembly.reason == "cancelled at the root"
    assert [p for p in leftovers(tmp_path / "a") if p.endswith(".part")]


def test_an_interrupt_tells_the_leaves_and_goes_on_up(world: World, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    leaf = world.start("a", tmp_path / "a")
    world.after_chunks(50, interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.send(make_file(tmp_path / "src"))
    assert isinstance(wire.decode(leaf.inbox[-1]), wire.Abort)


def test_messages_of_a_former_object_are_ignored(world: World, tmp_path: Path) -> None:
    leaf = world.start("a", tmp_path / "a")
    late = wire.encode(wire.Report(OTHER, bytes(32), "disk full", 0, []))
    world.after_chunks(5, lambda: world.to_root.append((leaf.handle.address, [late])))
    assert world.send(make_file(tmp_path / "src")).ok


def test_two_objects_follow_one_another_in_one_session(world: World, tmp_path: Path) -> None:
    leaf = world.start("a", tmp_path / "a")
    assert world.send(make_file(tmp_path / "src", name="one"), object_id=OTHER).ok
    leaf.store = FolderStore(tmp_path / "a")
    leaf.assembly, leaf.closed = type(leaf.assembly)(leaf.store), False
    assert world.send(make_file(tmp_path / "src", name="two")).ok
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["one", "two"]


class Fixed:
    """A pacer that lets a given number of bytes go a second."""

    def __init__(self, rate: int) -> None:
        self.rate, self.free_ns = rate, 0

    def delay_ns(self, size: int, now_ns: int) -> int:
        return max(0, self.free_ns - now_ns)

    def consume(self, size: int, now_ns: int) -> None:
        self.free_ns = max(self.free_ns, now_ns) + size * 1_000_000_000 // self.rate


def test_a_pacer_holds_the_rate_and_leaves_are_heard_meanwhile(
    world: World, tmp_path: Path
) -> None:
    seen: list[SendProgress] = []
    world.start("a", tmp_path / "a")
    result = world.send(
        make_file(tmp_path / "src"), pacer=Fixed(10 * CHUNK), on_progress=seen.append
    )
    assert result.ok
    assert 9.5 <= result.seconds <= 11
    assert len(seen) <= 10 * 12 + 1
    halfway = next(p for p in seen if p.bytes_read >= 50 * CHUNK)
    assert halfway.leaves[0].state is LeafState.RECEIVING
    assert 8 * CHUNK < halfway.rate < 12 * CHUNK
    assert halfway.leaves[0].bytes_done > 40 * CHUNK
    assert seen[-1].leaves[0].state is LeafState.VERIFIED
    assert seen[-1].as_dict()["leaves"][0]["state"] == "verified"


@pytest.mark.parametrize(
    "wrong",
    [
        {"leaves": 0},
        {"rate": 0},
        {"chunk_size": 1},
        {"object_id": b"short"},
        {"stall_timeout": 0},
        {"linger": -1},
        {"max_wait": -1},
    ],
)
def test_arguments_out_of_range_are_refused(
    world: World, tmp_path: Path, wrong: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        world.send(make_file(tmp_path / "src"), **wrong)


def test_many_small_files_go_out_in_few_calls(world: World, tmp_path: Path) -> None:
    top = tmp_path / "src" / "tree"
    top.mkdir(parents=True)
    for number in range(500):
        (top / f"{number:03}").write_bytes(content(20, number))
    world.start("a", tmp_path / "a")
    result = world.send(top, chunk_size=64 << 10)
    assert result.ok
    assert len(world.sends) < 20
    copies = sorted((tmp_path / "a" / "tree").iterdir())
    assert [c.read_bytes() for c in copies] == [content(20, n) for n in range(500)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, of which a file too large for it leaves nothing free."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "joinleaf-test", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_after_a_full_disk_nearly_all_that_came_is_still_known(
    world: World, tmp_path: Path, small_disk: Path
) -> None:
    path = make_file(tmp_path / "src", 4 << 20)
    full = world.start("full", small_disk)
    result = world.send(path, chunk_size=64 << 10)
    assert result.leaves[0].reason == os.strerror(errno.ENOSPC)
    world.kill(full)
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    again = world.start("full", small_disk)
    assert world.send(path, chunk_size=64 << 10).ok
    # Less than the room made for the journal; without it all of it would come again.
    assert again.assembly.resumed >= (2 << 20) - (1 << 20) - (256 << 10)
    assert (small_disk / "big.iso").read_bytes() == path.read_bytes()
