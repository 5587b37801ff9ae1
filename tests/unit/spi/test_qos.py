"""Flow specifications: rules of section 8.2, and rates as people write them."""

import pytest

from joinleaf.core.qos.token_bucket import TokenBucket
from joinleaf.spi import constants as c
from joinleaf.spi.qos import FlowSpec, Qos, parse_rate, parse_size

GUARANTEED = c.SERVICETYPE_GUARANTEED


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200M", 25_000_000), ("20Mbit/s", 2_500_000), ("25MB/s", 25_000_000), ("8", 1),
        ("1.6 kbps", 200), ("1Gibit", 1 << 27), ("2 KiB/s", 2048), (" 1 MByte/s ", 1_000_000),
    ],
)  # fmt: skip
def test_rates_are_bits_unless_bytes_are_named(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "M", "-1", "1e9", "7", "999T", "1 iB", "٣M"])
def test_a_rate_that_makes_no_sense_names_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="200M or 20Mbit/s"):
        parse_rate(text)


def test_sizes_know_both_kinds_of_prefix() -> None:
    assert [parse_size(t) for t in ("1500", "64kB", "1 MiB", "1.5G")] == [
        1500, 64_000, 1 << 20, 1_500_000_000,
    ]  # fmt: skip
    for text in ("0.5", "1b", "x"):
        with pytest.raises(ValueError, match="1 MiB"):
            parse_size(text)


def test_fresh_flow_specifications_ask_for_nothing() -> None:
    assert Qos().is_unspecified
    assert not Qos().reserves
    assert FlowSpec(token_rate=5, service_type=c.SERVICETYPE_NOTRAFFIC).is_unspecified
    assert not FlowSpec(token_rate=5).is_unspecified
    assert TokenBucket.from_flowspec(FlowSpec()) is None


def test_a_reservation_needs_its_numbers() -> None:
    asked = FlowSpec(service_type=GUARANTEED)
    with pytest.raises(ValueError, match="for sending needs a token_rate"):
        Qos(sending=asked)
    with pytest.raises(ValueError, match="for receiving needs a token_rate"):
        Qos(receiving=asked)
    assert Qos(receiving=FlowSpec(service_type=c.SERVICETYPE_CONTROLLEDLOAD)).reserves
    with pytest.raises(ValueError, match="minimum_policed_size"):
        Qos(FlowSpec(token_rate=1, service_type=GUARANTEED, minimum_policed_size=0))
    with pytest.raises(ValueError, match="below token_rate"):
        FlowSpec(token_rate=10, peak_bandwidth=9)
    for bad in (-1, 1 << 32):
        with pytest.raises(ValueError, match="32 bits"):
            FlowSpec(latency=bad)


@pytest.mark.parametrize(
    ("service", "dscp"),
    [(1, 0), (2, 24), (3, 40), (10, 48), (c.SERVICE_GUARANTEED, 40),
     (3 | c.SERVICE_NO_QOS_SIGNALING, 40)],
)  # fmt: skip
def test_service_types_mark_packets(service: int, dscp: int) -> None:
    assert FlowSpec(service_type=service).dscp == dscp
