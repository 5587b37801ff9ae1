"""How a receiving looks: one line that moves on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Final

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from joinleaf.cli import units
from joinleaf.cli.output import Talk
from joinleaf.transfer import ReceiveProgress

__all__ = ["ReceiveView"]

_LINE_EVERY_S: Final = 5.0
_EVENT_EVERY_S: Final = 0.5


class ReceiveView:
    """Shows ``ReceiveProgress`` as it comes; a context manager that cleans the terminal up."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        # Standard output is for data: nothing may come between.
        self._live = Live(
            console=talk.console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._begun = False
        self._line_s = self._event_s = time.monotonic()

    def __enter__(self) -> ReceiveView:
        if self._talk.live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, progress: ReceiveProgress) -> None:
        """Bring the picture up to date."""
        if not progress.name:
            return  # nothing has been offered yet
        now = time.monotonic()
        if not self._begun:
            self._begun = True
            total = progress.bytes_total
            size = "" if total is None else f" ({units.size(total)})"
            self._talk.say(f"receiving {units.clean(progress.name)}{size}")
        if self._talk.live:
            self._live.update(_picture(progress), refresh=True)
        elif now - self._line_s >= _LINE_EVERY_S:
            self._line_s = now
            self._talk.say(f"{progress.state}: {_amount(progress)}, {units.rate(progress.rate)}")
        if now - self._event_s >= _EVENT_EVERY_S:
            self._event_s = now
            self._talk.event("progress", **progress.as_dict())


def _amount(progress: ReceiveProgress) -> str:
    if progress.bytes_total is None:
        return units.size(progress.bytes_done)
    return units.percent(progress.bytes_done, progress.bytes_total)


def _picture(progress: ReceiveProgress) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    row.add_column(no_wrap=True, overflow="ellipsis")
    cells: list[RenderableType] = [Text(str(progress.state), style="cyan")]
    if progress.bytes_total is not None:
        bar = ProgressBar(
            total=max(1, progress.bytes_total), completed=progress.bytes_done, width=30
        )
        cells.append(bar)
    cells.append(Text(_amount(progress)))
    cells.append(Text(units.rate(progress.rate) if progress.rate else ""))
    if progress.eta is not None and progress.bytes_done < (progress.bytes_total or 0):
        cells.append(Text(f"{units.duration(progress.eta)} left"))
    row.add_row(*cells)
    return row
