"""Who takes part in which question, and whether what it needs is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Final

import joinleaf
from bench import nats_contenders, zenoh_contenders, zmq_contenders
from bench.aio_contenders import AIO
from bench.contenders import (
    ASYNCIO,
    JOINLEAF,
    JOINLEAF_GROUP,
    JOINLEAF_SEALED,
    Contender,
    JoinleafGroupSender,
)

__all__ = ["ALL", "EVERY", "ON_LOOPS", "installed", "why_not"]

ALL: Final[Sequence[Contender]] = (
    zmq_contenders.PLAIN,
    zmq_contenders.PACKED,
    ASYNCIO,
    zenoh_contenders.TCP,
    zenoh_contenders.SHARED,
    zenoh_contenders.ALLOCATED,
    nats_contenders.CONTENDER,
    JOINLEAF_GROUP,
    JOINLEAF_SEALED,
    *JOINLEAF,
)
"""Of the questions messages and latency. The first is what the others are compared with."""

ON_LOOPS: Final[Sequence[Contender]] = (JOINLEAF[0], *AIO, nats_contenders.CONTENDER)
"""Of the question aio: the first is the same batches without a loop."""

EVERY: Final[Mapping[str, Contender]] = {one.name: one for one in (*ALL, *ON_LOOPS)}


def why_not(contender: Contender) -> str:
    """What keeps a contender from taking part on this machine; empty if nothing does."""
    if find_spec(contender.needs) is None:
        return f"the module {contender.needs} is missing: pip install 'joinleaf[bench]'"
    if contender.needs == "nats" and nats_contenders.server() is None:
        return "nats-server is missing: pip install 'joinleaf[bench]'"
    if contender in (JOINLEAF_GROUP, JOINLEAF_SEALED) and not _carries_groups():
        return "this joinleaf has no multicast carrier"
    return ""


def _carries_groups() -> bool:
    with contextlib.suppress(joinleaf.JoinleafError, ValueError):
        joinleaf.open_root(JoinleafGroupSender.where("127.0.0.1"), open=True).close(timeout=0)
        return True
    return False


def installed(contenders: Sequence[Contender], only: Sequence[str] = ()) -> list[Contender]:
    """Those that can take part; says of each other why it does not."""
    able = []
    for contender in contenders:
        if only and contender.name not in only:
            continue
        if reason := why_not(contender):
            print(f"left out: {contender.name} ({reason})")
        else:
            able.append(contender)
    return able
