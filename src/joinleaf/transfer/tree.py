"""Files below one folder, and never outside it.

Every step from the top down opens one directory relative to the one before and refuses symbolic
links, so that no name, and nobody who swaps a folder for a link meanwhile, leads out of the
folder. Where the system has no such calls (Windows), the same steps are taken by path, with a look
before each; that leaves a moment between look and step, and is said so in the documentation.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Tree"]

_BINARY: Final[int] = getattr(os, "O_BINARY", 0)
_NO_FOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: Final[int] = getattr(os, "O_DIRECTORY", 0)
_BY_HANDLE: Final = {os.open, os.mkdir, os.rename, os.unlink, os.stat} <= os.supports_dir_fd
"""os.link is looked at where it is used: some systems have all but that."""

Parts = tuple[str, ...]


class Tree:
    """Operations on files below ``top``; each raises OSError as the system call does.

    Args:
        top: An existing folder, trusted, possibly reached through links.
        by_handle: Whether directories are held open while their contents are worked on.
    """

    def __init__(self, top: str, *, by_handle: bool = _BY_HANDLE) -> None:
        self._top = os.path.abspath(top)
        self._by_handle = by_handle

    @property
    def top(self) -> str:
        """The folder, as an absolute path."""
        return self._top

    def make_folder(self, parts: Parts) -> None:
        """Make a folder and those above it; one that exists is as good."""
        with self._folder(parts, make=True):
            pass

    def open_new(self, parts: Parts, *, executable: bool = False) -> int:
        """Create a file for reading and writing; FileExistsError if there is one.

        Permissions are those of any new file (the umask holds), never setuid or the like.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | _NO_FOLLOW
        with self._folder(parts[:-1], make=True) as folder:
            name, at = self._at(folder, parts[-1])
            return os.open(name, flags, 0o777 if executable else 0o666, **at)

    def open_old(self, parts: Parts, *, write: bool = True) -> int:
        """Open a regular file that is there and no link."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | _BINARY | _NO_FOLLOW
        with self._folder(parts[:-1]) as folder:
            name, at = self._at(folder, parts[-1])
            # Looked at before opening, as opening a FIFO would wait; and through lstat, so that
            # a link is refused on systems without O_NOFOLLOW too.
            if not stat.S_ISREG(os.stat(name, follow_symlinks=False, **at).st_mode):
                raise OSError(errno.EEXIST, "Is not a regular file")
            return os.open(name, flags, **at)

    def status(self, parts: Parts) -> os.stat_result | None:
        """What is there, links not followed; None if nothing is."""
        try:
            with self._folder(parts[:-1]) as folder:
                name, at = self._at(folder, parts[-1])
                return os.stat(name, follow_symlinks=False, **at)
        except FileNotFoundError:
            return None

    def publish(self, folder_parts: Parts, source: str, target: str, *, replace: bool) -> None:
        """Give a finished file its name, at once and whole.

        Raises:
            FileExistsError: Something is there, and ``replace`` is False.
        """
        with self._folder(folder_parts) as folder:
            old, at = self._at(folder, source)
            new, _ = self._at(folder, target)
            pair = {"src_dir_fd": folder, "dst_dir_fd": folder} if at else {}
            if not replace and not self._link(old, new, pair, at):
                # No hard links here (FAT, some network disks): look, then rename.
                with suppress(FileNotFoundError):
                    os.stat(new, follow_symlinks=False, **at)
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if replace or self._still_there(old, at):
                os.replace(old, new, **pair)

    def remove(self, parts: Parts) -> None:
        """Delete a file; one that is not there is as good."""
        with suppress(FileNotFoundError), self._folder(parts[:-1]) as folder:
            name, at = self._at(folder, parts[-1])
            os.unlink(name, **at)

    def names(self, parts: Parts) -> list[str]:
        """What is in a folder, sorted; empty if it is not there."""
        try:
            with self._folder(parts) as folder:
                return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _link(self, old: str, new: str, pair: dict[str, Any], at: dict[str, Any]) -> bool:
        """Name a file a second time and drop its first name; False where there are no links."""
        if pair and os.link not in os.supports_dir_fd:
            return False
        try:
            os.link(old, new, **pair, **({"follow_symlinks": False} if pair else {}))
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):
            return False
        os.unlink(old, **at)
        return True

    @staticmethod
    def _still_there(name: str, at: dict[str, Any]) -> bool:
        try:
            os.stat(name, follow_symlinks=False, **at)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _folder(self, parts: Parts, *, make: bool = False) -> Iterator[Any]:
        """A directory as a descriptor or, without such calls, as a path."""
        if not self._by_handle:
            yield self._checked_path(parts, make=make)
            return
        flags = os.O_RDONLY | _DIRECTORY | _NO_FOLLOW
        here = os.open(self._top, os.O_RDONLY | _DIRECTORY)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=here)
                below = os.open(part, flags, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def _checked_path(self, parts: Parts, *, make: bool) -> str:
        path = self._top
        for part in parts:
            path = os.path.join(path, part)
            if make:
                with suppress(FileExistsError):
                    os.mkdir(path)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return path

    def _at(self, folder: Any, name: str) -> tuple[str, dict[str, Any]]:
        """A name in a folder, as the arguments of a call in ``os``."""
        if self._by_handle:
            return name, {"dir_fd": folder}
        return os.path.join(folder, name), {}
