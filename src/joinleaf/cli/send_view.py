"""How a sending looks: a table with one row per leaf on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from joinleaf.cli import units
from joinleaf.cli.carriage import CARRIED
from joinleaf.cli.columns import aligned
from joinleaf.cli.output import Talk
from joinleaf.transfer import LeafProgress, LeafState, SendProgress, TransferResult

__all__ = ["SendView"]

_LINE_EVERY_S: Final = 5.0  # between plain lines of progress
_EVENT_EVERY_S: Final = 0.5  # between JSON lines of progress
_NOTICES: Final = 10  # said one by one; the rest is counted
_ROWS_KEPT_FREE: Final = 6  # of the terminal's height, for everything but leaves

_STYLES: Final = {
    LeafState.WAITING: "dim",
    LeafState.RECEIVING: "cyan",
    LeafState.VERIFYING: "cyan",
    LeafState.VERIFIED: "green",
    LeafState.FAILED: "red",
    LeafState.GONE: "red",
}


class SendView:
    """Shows ``SendProgress`` as it comes; a context manager that cleans the terminal up.

    Args:
        talk: Where to show it.
        keys: Whether a key starts the sending.
        group: Where the multicast stream goes; ``""``: there is none.
        carried: Gives the root's counters.

    """

    def __init__(
        self,
        talk: Talk,
        *,
        keys: bool = False,
        group: str = "",
        carried: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._talk = talk
        self._keys = keys
        self._group = group
        self._carried = carried
        # Standard output is for data: nothing may come between.
        self._live = Live(
            console=talk.console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._states: dict[str, str] = {}
        self._line_s = self._event_s = time.monotonic()

    def __enter__(self) -> SendView:
        if self._talk.live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def leaves_out(self, notices: Sequence[str]) -> None:
        """Before anything is sent: what of the source nobody will get, and why."""
        for notice in notices[:_NOTICES]:
            self._talk.say(f"notice: {units.clean(notice)}", "yellow")
        if (more := len(notices) - _NOTICES) > 0:
            self._talk.say(f"notice: {more} more like these", "yellow")
        if notices:
            self._talk.event("left_out", notices=list(notices))

    def show(self, progress: SendProgress) -> None:
        """Bring the picture up to date."""
        now = time.monotonic()
        if self._talk.live:
            self._live.update(self._picture(progress), refresh=True)
        else:
            self._tell_changes(progress)
            if now - self._line_s >= _LINE_EVERY_S:
                self._line_s = now
                self._talk.say(self._status(progress))
        if now - self._event_s >= _EVENT_EVERY_S:
            self._event_s = now
            self._talk.event("progress", **progress.as_dict(), **self._counts())

    def _counts(self) -> dict[str, int]:
        counts = self._carried() if self._talk.common.json else {}
        return {name: counts[name] for name in CARRIED if name in counts}

    def _status(self, progress: SendProgress) -> str:
        text = _status(progress)
        if self._group and progress.phase != "waiting":
            again = self._carried().get("group_repair_bytes", 0)
            text += f"; {units.size(again)} sent again" if again else ""
        return text

    def _tell_changes(self, progress: SendProgress) -> None:
        for leaf in progress.leaves:
            state = _state(leaf, progress.phase)
            if self._states.get(leaf.address) != state:
                self._states[leaf.address] = state
                if leaf.state not in (LeafState.WAITING, LeafState.VERIFYING):
                    self._talk.say(f"{_who(leaf)}: {_words(leaf) if leaf.state.final else state}")

    def _picture(self, progress: SendProgress) -> RenderableType:
        parts: list[RenderableType] = []
        if progress.leaves:
            parts.append(self._table(progress))
        parts.append(Text(self._status(progress), style="bold"))
        if self._keys and progress.phase == "waiting" and progress.leaves:
            parts.append(Text("press Enter or s to start with those who are here", style="dim"))
        return Group(*parts)

    def _table(self, progress: SendProgress) -> RenderableType:
        room = max(3, self._talk.console.height - _ROWS_KEPT_FREE)
        leaves = list(progress.leaves)
        if len(leaves) > room:  # those under way are worth more than those that are done
            leaves.sort(key=lambda leaf: leaf.state is LeafState.VERIFIED)
        table = Table.grid(padding=(0, 2))
        headers = [header for header in _HEADERS if self._group or header != _BY]
        for header in headers:
            table.add_column(justify="right" if header in _NUMBERS else "left", no_wrap=True)
        table.add_row(*(Text(header.strip(), style="dim") for header in headers))
        for leaf in leaves[:room]:
            table.add_row(*_cells(leaf, progress.phase, by=bool(self._group)))
        if len(leaves) > room:
            table.add_row(Text(f"and {len(leaves) - room} more", style="dim"))
        return table

    def verdict(self, result: TransferResult) -> None:
        """The end: a line per leaf, then the sum."""
        self._live.stop()
        if not self._talk.talks or not result.leaves:
            return
        if result.notices:
            what = units.count(len(result.notices), "entry", "entries")
            self._talk.say(f"notice: {what} left out, as said above", "yellow")
        for failure in result.failures[:10]:
            self._talk.say(f"{units.clean(failure.path)}: {failure.reason}", "red")
        who = aligned([(units.clean(one.name or "unnamed"), one.address) for one in result.leaves])
        width = max(map(cell_len, who), default=0)
        for line, leaf in zip(who, result.leaves, strict=True):
            self._talk.say(line + " " * (width - cell_len(line) + 2), end="")
            self._talk.say(_words(leaf), _STYLES[leaf.state], end="")
            by = f", by {_CARRIERS[leaf.carrier]}" if self._group and leaf.carrier else ""
            self._talk.say(by, "dim")
        self._talk.say(_sum(result), "bold green" if result.ok else "bold red")
        if self._group:
            self._talk.say(self._how(result), "dim")

    def _how(self, result: TransferResult) -> str:
        """By which carrier the leaves were served, and what of the stream was sent again."""
        counts = self._carried()
        sent, again = counts.get("group_bytes", 0), counts.get("group_repair_bytes", 0)
        by_group = sum(leaf.carrier == "group" for leaf in result.leaves)
        by_leg = sum(leaf.carrier == "leg" for leaf in result.leaves)
        if not by_group:
            return f"nobody hears the group {self._group}: to each by its leg"
        repaired = f"{units.size(again)} of it again" if again else "nothing twice"
        text = f"{by_group} by the group {self._group}: {units.size(sent)} sent, {repaired}"
        if by_leg:
            legs = "its leg" if by_leg == 1 else "their legs"
            text += f"; {by_leg} by {legs}: {units.size(counts.get('leg_bytes', 0))} sent"
        return text


_BY: Final = "by"
_CARRIERS: Final = {"group": "the group", "leg": "its leg"}
_HEADERS: Final = ("leaf", "address", "state", _BY, "", " ", "rate", "left")
_NUMBERS: Final = frozenset({" ", "rate", "left"})


def _state(leaf: LeafProgress, phase: str) -> str:
    """In a word; who is to receive is only ready as long as nothing is sent."""
    ready = phase == "waiting" and leaf.state is LeafState.RECEIVING
    return "ready" if ready else str(leaf.state)


def _cells(leaf: LeafProgress, phase: str, *, by: bool) -> tuple[RenderableType, ...]:
    known = leaf.bytes_total is not None
    bar: RenderableType = ""
    if known and leaf.state is not LeafState.WAITING:
        bar = ProgressBar(total=max(1, leaf.bytes_total or 0), completed=_bar(leaf), width=20)
    moving = leaf.state is LeafState.RECEIVING and phase != "waiting"
    share = units.percent(leaf.bytes_done, leaf.bytes_total)
    return (
        Text(units.clean(leaf.name or "unnamed")),
        Text(leaf.address, style="dim"),
        Text(_state(leaf, phase), style=_STYLES[leaf.state]),
        *([Text(leaf.carrier, style="dim")] if by else []),
        bar,
        Text(share if known else units.size(leaf.bytes_done)),
        Text(units.rate(leaf.rate) if moving else ""),
        Text(units.duration(leaf.eta) if moving and leaf.eta is not None else ""),
    )


def _bar(leaf: LeafProgress) -> int:
    # An empty object is complete, and a bar of nothing looks like a failure.
    return leaf.bytes_done if leaf.bytes_total else int(leaf.state is LeafState.VERIFIED)


def _status(progress: SendProgress) -> str:
    here = len(progress.leaves)
    name = units.clean(progress.name)
    if progress.phase == "waiting":
        answered = sum(leaf.state is not LeafState.GONE for leaf in progress.leaves)
        return f"{answered} of {units.count(progress.expected, 'leaf', 'leaves')} joined"
    done = sum(leaf.ok for leaf in progress.leaves)
    have = f"{done} of {units.count(max(here, progress.expected), 'leaf', 'leaves')} verified"
    if progress.phase == "lingering":
        return f"{name}: {have}; waiting a moment for those that are gone"
    share = units.percent(progress.bytes_read, progress.bytes_total)
    if progress.bytes_total is None:
        share = units.size(progress.bytes_read)
    return f"{name}: {share} sent, {units.rate(progress.rate)}; {have}"


def _who(leaf: LeafProgress) -> str:
    return f"{units.clean(leaf.name or 'unnamed')} ({leaf.address})"


def _words(leaf: LeafProgress) -> str:
    reason = units.clean(leaf.reason)
    if leaf.state is LeafState.VERIFIED:
        return "verified" + (
            f" (was gone {units.count(leaf.returns, 'time')})" if leaf.returns else ""
        )
    if leaf.state is LeafState.FAILED and not reason and leaf.failures:
        first = leaf.failures[0]
        more = f" and {len(leaf.failures) - 1} more" if len(leaf.failures) > 1 else ""
        reason = f"{units.clean(first.path)}: {units.clean(first.reason)}{more}"
    return f"{leaf.state}: {reason}" if reason else str(leaf.state)


def _sum(result: TransferResult) -> str:
    name, total = units.clean(result.name), len(result.leaves) + result.absent
    if result.verified:
        have = "has" if result.verified == 1 else "have"
        leaves = units.count(total, "leaf", "leaves")
        text = f"{result.verified} of {leaves} {have} {name}, verified by {result.digest_kind}"
    else:
        text = f"no leaf has {name}"
    text += f"; {units.size(result.size)} in {units.duration(result.seconds)}"
    if result.seconds > 0 and result.bytes_sent:
        text += f", {units.rate(result.bytes_sent / result.seconds)}"
    if result.absent:
        text += f"; {result.absent} never came"
    return text + (f"\nsha256 {result.sha256}" if result.sha256 else "")
