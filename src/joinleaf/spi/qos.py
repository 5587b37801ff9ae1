"""FlowSpec and Qos (FLOWSPEC, QOS): what a member asks of the network in each direction.

Rates are bytes per second, sizes bytes, times microseconds. People write rates in bits; text is
turned into numbers here, by ``parse_rate`` and ``parse_size``, and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Final

from joinleaf.spi import constants as c

__all__ = ["FlowSpec", "Qos", "parse_rate", "parse_size"]

_DWORD_MAX: Final = 0xFFFFFFFF

# The SERVICE_* spellings set one high bit per type; the modifiers share bits 30, 31 and 24.
_MODIFIERS: Final = c.SERVICE_NO_TRAFFIC_CONTROL | c.SERVICE_NO_QOS_SIGNALING
_LONG_SPELLINGS: Final = {
    c.SERVICE_BESTEFFORT & ~_MODIFIERS: c.SERVICETYPE_BESTEFFORT,
    c.SERVICE_CONTROLLEDLOAD & ~_MODIFIERS: c.SERVICETYPE_CONTROLLEDLOAD,
    c.SERVICE_GUARANTEED & ~_MODIFIERS: c.SERVICETYPE_GUARANTEED,
    c.SERVICE_QUALITATIVE & ~_MODIFIERS: c.SERVICETYPE_QUALITATIVE,
}
_SERVICE_TYPES: Final = frozenset(
    value for name, value in vars(c).items() if name.startswith("SERVICETYPE_")
)
_RESERVING: Final = frozenset({c.SERVICETYPE_CONTROLLEDLOAD, c.SERVICETYPE_GUARANTEED})

# Class selectors (RFC 2474): what every router orders the same way.
_DSCP: Final = {
    c.SERVICETYPE_CONTROLLEDLOAD: 24,
    c.SERVICETYPE_GUARANTEED: 40,
    c.SERVICETYPE_NETWORK_CONTROL: 48,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """FLOWSPEC: one direction. A fresh one asks for nothing.

    Every number is 0 to 0xFFFFFFFF; QOS_NOT_SPECIFIED, the default, is no request. In a rate,
    POSITIVE_INFINITY_RATE is "as fast as the network goes".

    Attributes:
        token_rate: Sustained rate, bytes per second.
        token_bucket_size: Longest burst above it, bytes.
        peak_bandwidth: Highest rate ever, bytes per second; at least ``token_rate``.
        latency: Longest delay, microseconds.
        delay_variation: Largest difference between delays, microseconds.
        service_type: SERVICETYPE_*, alone or with the SERVICE_NO_* modifiers, or SERVICE_*.
        max_sdu_size: Longest message, bytes.
        minimum_policed_size: Shorter messages count as this long, bytes.

    Raises:
        ValueError: A number is out of range, the type unknown, or the peak below the rate.

    Source:
        Sections 8.1 and 8.2 of the multipoint model.
    """

    token_rate: int = c.QOS_NOT_SPECIFIED
    token_bucket_size: int = c.QOS_NOT_SPECIFIED
    peak_bandwidth: int = c.QOS_NOT_SPECIFIED
    latency: int = c.QOS_NOT_SPECIFIED
    delay_variation: int = c.QOS_NOT_SPECIFIED
    service_type: int = c.SERVICETYPE_BESTEFFORT
    max_sdu_size: int = c.QOS_NOT_SPECIFIED
    minimum_policed_size: int = c.QOS_NOT_SPECIFIED

    def __post_init__(self) -> None:
        for name in _FLOWSPEC_FIELDS:
            if not 0 <= (value := getattr(self, name)) <= _DWORD_MAX:
                raise ValueError(f"{name} {value} does not fit 32 bits: give 0 to {_DWORD_MAX}")
        if self.base_service_type not in _SERVICE_TYPES:
            raise ValueError(f"service_type {self.service_type:#x} is no SERVICETYPE_* value")
        rate, peak = self.rate, self.peak
        if peak is not None and (rate or 0) > peak:
            raise ValueError(f"peak_bandwidth {peak} is below token_rate {rate}")

    @property
    def rate(self) -> int | None:
        """``token_rate`` in bytes per second; None where it limits nothing."""
        return _limit(self.token_rate)

    @property
    def bucket(self) -> int | None:
        """``token_bucket_size`` in bytes; None where none is stated."""
        return None if self.token_bucket_size == c.QOS_NOT_SPECIFIED else self.token_bucket_size

    @property
    def peak(self) -> int | None:
        """``peak_bandwidth`` in bytes per second; None where it limits nothing."""
        return _limit(self.peak_bandwidth)

    @property
    def max_message(self) -> int | None:
        """``max_sdu_size`` in bytes; None where none is stated."""
        return None if self.max_sdu_size == c.QOS_NOT_SPECIFIED else self.max_sdu_size

    @property
    def base_service_type(self) -> int:
        """The SERVICETYPE_* value, without modifiers and in its short spelling."""
        base = self.service_type & ~_MODIFIERS
        return _LONG_SPELLINGS.get(base, base)

    @property
    def has_traffic(self) -> bool:
        """Whether anything flows in this direction at all."""
        return self.base_service_type != c.SERVICETYPE_NOTRAFFIC

    @property
    def is_unspecified(self) -> bool:
        """Whether every provider can grant it: no number, no better service (rule 3)."""
        if not self.has_traffic:
            return True
        return self.base_service_type == c.SERVICETYPE_BESTEFFORT and all(
            getattr(self, name) == c.QOS_NOT_SPECIFIED
            for name in _FLOWSPEC_FIELDS
            if name != "service_type"
        )

    @property
    def reserves(self) -> bool:
        """Whether it asks for capacity to be set aside (guaranteed or controlled load)."""
        return self.base_service_type in _RESERVING

    @property
    def dscp(self) -> int:
        """Differentiated-services code point for its packets, 0 to 63."""
        return _DSCP.get(self.base_service_type, 0)


_FLOWSPEC_FIELDS: Final = tuple(entry.name for entry in fields(FlowSpec))


@dataclass(frozen=True, slots=True)
class Qos:
    """QOS: both directions, as seen by the member that states them.

    Attributes:
        sending: What it will send.
        receiving: What it wants to receive.
        provider_specific: Objects for the provider, passed through unread.

    Raises:
        ValueError: A reservation without the numbers it needs. To reserve, ``sending`` needs a
            token rate, ``receiving`` does so if guaranteed, and no policed size may be 0.

    Source:
        Section 8.2 of the multipoint model, rule 2.
    """

    sending: FlowSpec = field(default_factory=FlowSpec)
    receiving: FlowSpec = field(default_factory=FlowSpec)
    provider_specific: bytes = b""

    def __post_init__(self) -> None:
        guaranteed = self.receiving.base_service_type == c.SERVICETYPE_GUARANTEED
        if self.sending.reserves and self.sending.token_rate in (0, c.QOS_NOT_SPECIFIED):
            raise ValueError("a reservation for sending needs a token_rate above 0")
        if guaranteed and self.receiving.token_rate == c.QOS_NOT_SPECIFIED:
            raise ValueError("a guaranteed reservation for receiving needs a token_rate")
        for flow in (self.sending, self.receiving):
            if flow.reserves and flow.minimum_policed_size == 0:
                raise ValueError("a reservation needs a minimum_policed_size above 0")

    @property
    def is_unspecified(self) -> bool:
        """Whether it asks for nothing, so that every provider can grant it (rule 3)."""
        return self.sending.is_unspecified and self.receiving.is_unspecified

    @property
    def reserves(self) -> bool:
        """Whether either direction asks for capacity to be set aside."""
        return self.sending.reserves or self.receiving.reserves


def _limit(rate: int) -> int | None:
    return None if rate in (c.QOS_NOT_SPECIFIED, c.POSITIVE_INFINITY_RATE) else rate


_PREFIXES: Final = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kMGT", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGT", 1)},
    "K": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1024,
}
_AMOUNT: Final = r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([kKmMgGtT]?i?)"
_RATE: Final = re.compile(_AMOUNT + r"(bits?|bps|b|[Bb]ytes?|Bps|B|)(?:/s)?\s*", re.ASCII)
_SIZE: Final = re.compile(_AMOUNT + r"(bytes?|B|)\s*", re.ASCII)


def parse_rate(text: str) -> int:
    """Read a rate as people write it.

    Rates are **bits** per second unless a capital ``B`` or ``byte`` says otherwise: ``200M``,
    ``200Mbit/s``, ``200 Mbps`` are 200 million bits per second; ``25MB/s``, ``25 Mbyte/s`` are
    25 million bytes per second. ``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` of 1024.

    Returns:
        Bytes per second, at least 1; fractions of a byte are dropped.

    Raises:
        ValueError: Not of this form, below one byte per second, or beyond what a FLOWSPEC holds.
    """
    forms = "write a rate as 200M or 20Mbit/s (bits per second) or 25MB/s (bytes per second)"
    amount, unit = _amount(_RATE, text, forms)
    rate = int(amount if unit.startswith(("B", "byte")) else amount / 8)
    if not 1 <= rate < c.POSITIVE_INFINITY_RATE:
        raise ValueError(f"rate {text!r} is not between 1 byte/s and 4294967293 bytes/s; {forms}")
    return rate


def parse_size(text: str) -> int:
    """Read a size as people write it: ``1500``, ``64 kB``, ``1 MiB``, ``1.5G``.

    ``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` of 1024; a ``B`` may follow.

    Returns:
        Bytes, 0 or more.

    Raises:
        ValueError: Not of this form, or not a whole number of bytes.
    """
    forms = "write a size as 1500, 64kB (1000s) or 1 MiB (1024s)"
    amount, _ = _amount(_SIZE, text, forms)
    if amount.denominator != 1:
        raise ValueError(f"size {text!r} is no whole number of bytes; {forms}")
    return int(amount)


def _amount(pattern: re.Pattern[str], text: str, forms: str) -> tuple[Fraction, str]:
    match = pattern.fullmatch(text)
    if match is None or match[2] not in _PREFIXES:
        raise ValueError(f"{text!r} is not understood; {forms}")
    return Fraction(match[1]) * _PREFIXES[match[2]], match[3]
