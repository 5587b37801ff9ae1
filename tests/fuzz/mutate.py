"""Inputs from a corpus by mutation: the same seed, target and corpus make the same inputs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

__all__ = ["CORPUS", "Mutator", "load"]

CORPUS: Final = Path(__file__).parent / "corpus"
MAX_INPUT: Final = 4096
_NUMBERS: Final = (
    0,
    1,
    7,
    8,
    12,
    127,
    128,
    255,
    256,
    0xFFFF,
    0x10000,
    (1 << 31) - 1,
    (1 << 32) - 1,
)


def load(target: str) -> list[bytes]:
    """The target's corpus in the order of its names."""
    folder = CORPUS / target
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


class Mutator:
    """An endless stream of inputs."""

    def __init__(self, target: str, seed: int) -> None:
        self._rng = random.Random(f"{seed}/{target}")
        self._corpus = load(target) or [b""]

    def next(self) -> bytes:
        """One input: a piece of the corpus after one to five changes."""
        rng = self._rng
        data = bytearray(rng.choice(self._corpus))
        for _ in range(rng.randint(1, 5)):
            self._change(data)
        return bytes(data[:MAX_INPUT])

    def _change(self, data: bytearray) -> None:
        rng = self._rng
        start = rng.randint(0, len(data))
        stop = min(len(data), start + rng.choice((1, 2, 4, 8, 40)))
        match rng.randrange(8):
            case 0 if data:
                data[start % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                data[start:stop] = rng.randbytes(stop - start)
            case 2:
                del data[start:stop]
            case 3:
                data[start:start] = data[start:stop] * rng.randint(1, 4)
            case 4:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_NUMBERS) % (1 << 8 * width)
                data[start : start + width] = number.to_bytes(width, rng.choice(("big", "little")))
            case 5:
                other = rng.choice(self._corpus)
                cut = rng.randint(0, len(other))
                data[start:stop] = other[cut : cut + rng.randint(0, 64)]
            case 6 if data:
                place = start % len(data)
                data[place] = (data[place] + rng.choice((-1, 1))) % 256
            case _:
                data[start:start] = rng.randbytes(rng.randint(1, 4))
