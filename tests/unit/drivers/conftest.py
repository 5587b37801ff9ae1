"""What tests of the drivers share."""

from __future__ import annotations

import itertools
import os
import socket

import pytest

from joinleaf.values import Address

_numbers = itertools.count()


@pytest.fixture
def group() -> Address:
    """A group and a port that no other test of this machine uses at the moment."""
    pid = os.getpid()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return Address(f"239.{192 + pid % 60}.{pid // 60 % 250}.{next(_numbers) % 250 + 1}", port)
