"""Text in columns, for pipes as for terminals: never cut, never padded at the end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

__all__ = ["aligned"]


def aligned(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """One line per row; columns two spaces apart.

    Args:
        rows: Cells, the same number in each row.
        right: Numbers of the columns that are aligned to the right.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(row, widths, right)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> list[str]:
    padded = []
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - cell_len(cell))  # characters may be two cells wide
        padded.append(space + cell if number in right else cell + space)
    return padded
