from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from joinleaf.transfer.source import PathSource, SourceFileError, StreamSource, open_source


def read(source: PathSource | StreamSource, size: int, offset: int = 0) -> bytes:
    buffer = bytearray(size)
    source.read_into(0, offset, memoryview(buffer))
    return bytes(buffer)


def test_a_file_is_one_entry_under_its_own_or_another_name(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abcdef")
    path.chmod(0o700)
    source = PathSource(path)
    [entry] = source.manifest.entries
    assert (entry.path, entry.size, entry.executable) == ("x", 6, True)
    assert entry.mtime_ns == path.stat().st_mtime_ns
    assert PathSource(path, name="y").manifest.entries[0].path == "y"
    assert read(source, 3, 2) == b"cde"
    source.check(0)
    source.close()
    source.close()


def test_a_folder_is_listed_in_order_folders_before_what_is_in_them(tmp_path: Path) -> None:
    for name in ("b/c", "a"):
        (tmp_path / "t" / name).mkdir(parents=True)
        (tmp_path / "t" / name / "f").touch()
    paths = [entry.path for entry in PathSource(tmp_path / "t").manifest.entries]
    assert paths == ["t", "t/a", "t/a/f", "t/b", "t/b/c", "t/b/c/f"]


def test_what_is_no_regular_file_is_left_out_with_a_notice(tmp_path: Path) -> None:
    top = tmp_path / "t"
    top.mkdir()
    os.mkfifo(top / "fifo")
    (top / "link").symlink_to("/etc")
    (tmp_path / os.fsdecode(b"t/\xff")).touch()
    source = PathSource(top)
    assert [entry.path for entry in source.manifest.entries] == ["t"]
    assert len(source.notices) == 3
    assert "not UTF-8" in source.notices[-1]


def test_what_cannot_be_sent_at_all_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        PathSource(tmp_path / "fifo")
    with pytest.raises(FileNotFoundError):
        PathSource(tmp_path / "nothing")


def test_a_file_that_shrinks_while_it_is_read_fails(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abcdef")
    source = PathSource(path)
    assert read(source, 3) == b"abc"
    os.truncate(path, 4)
    with pytest.raises(SourceFileError, match="shrank"):
        read(source, 3, 3)
    source.close()


def test_a_file_replaced_by_another_of_the_same_size_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abcdef")
    status = path.stat()
    source = PathSource(path)
    read(source, 6)
    (tmp_path / "y").write_bytes(b"ABCDEF")
    os.utime(tmp_path / "y", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "y").replace(path)
    with pytest.raises(SourceFileError, match="changed while"):
        source.check(0)


def test_a_file_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abcdef")
    (tmp_path / "secret").write_bytes(b"secret")
    source = PathSource(path)
    path.unlink()
    path.symlink_to("secret")
    with pytest.raises(SourceFileError):
        read(source, 6)


def test_a_stream_is_spooled_and_can_be_read_twice() -> None:
    source = StreamSource(io.BytesIO(b"abcdef" * 1000))
    source.wait(5999, timeout=30)
    assert source.available(0)[0] == 6000
    assert read(source, 6) == read(source, 6, 5994) == b"abcdef"
    source.wait(6000, timeout=30)
    assert source.available(0) == (6000, True)
    source.check(0)
    source.close()


def test_what_is_in_a_pipe_can_be_read_before_it_ends() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "wb", buffering=0) as writer:
        source = StreamSource(reader)
        writer.write(b"early")
        source.wait(4, timeout=30)
        assert source.available(0) == (5, False)
        writer.close()
        source.wait(5, timeout=30)
        assert source.available(0) == (5, True)
        source.close()


def test_closing_ends_the_reading_of_a_stream_that_is_ahead() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(1 << 20)

    before = set(threading.enumerate())
    source = StreamSource(Endless())  # type: ignore[arg-type]  # all that is used is there
    [reader] = set(threading.enumerate()) - before
    source.wait((64 << 20) - 1, timeout=30)
    assert source.available(0) == (64 << 20, False)
    source.close()
    reader.join(30)
    assert not reader.is_alive()


def test_paths_streams_and_sources_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    source = open_source(str(tmp_path / "x"))
    assert isinstance(source, PathSource)
    assert open_source(source) is source
    stream = open_source(io.BytesIO(b""))
    assert isinstance(stream, StreamSource)
    stream.close()
