"""Rates between hosts: what was agreed, what a link gives, and what is left to a TCP beside it.

On links slow enough that the machine is not what is measured.
"""

from __future__ import annotations

import json

import pytest
from bench.fairness import beside_tcp, narrow
from bench.lan import lan
from bench.rate import most_in_windows, send_for, steady
from tests.netns.lan import why_not

MB = 1_000_000
MESSAGE = 65_536  # what the programs send; it arrives as a whole
LATE_S = 0.05  # by which what left in time may come late to a process that has to wait its turn


@pytest.fixture(autouse=True)
def _networks() -> None:
    if reason := why_not():
        pytest.skip(reason)


def test_ten_megabytes_a_second_hold_for_ten_seconds_and_no_window_exceeds_them() -> None:
    bucket, peak = 200_000, 15 * MB
    flow = {"token_rate": 10 * MB, "token_bucket_size": bucket, "peak_bandwidth": peak}
    with lan(2, wire="mtu") as net:
        got, _ = send_for(net, 10.0, flow)
    for one in got:
        begin = one.times[0]
        assert 9.7 * MB < one.rate(begin, begin + 9.8) < 10.3 * MB
        for window in (0.01, 0.1, 1.0, 5.0):
            late = window + LATE_S
            most = min(bucket + 10 * MB * late, bucket + peak * late) + MESSAGE
            assert most_in_windows(one, window) <= most


@pytest.mark.parametrize("where", ["root", "network"])
def test_a_tcp_beside_the_multicast_keeps_a_fair_share(where: str) -> None:
    with lan(2, wire="mtu") as net:
        narrow(net, 100, 1 << 19, where)
        shares = beside_tcp(net, 6.0, "cubic")
    assert shares.of_tcp > 0.25, shares
    assert shares.of_tcp < 0.9, shares
    assert shares.stream + shares.tcp > 0.7 * 100 * 125_000


def test_a_shaped_link_is_filled_and_losses_leave_most_of_it() -> None:
    rates = []
    for loss in (0.0, 0.01, 0.05):
        with lan(3, loss=loss, rate_bit_per_s=200_000_000, wire="mtu") as net:
            got, _ = send_for(net, 3.0)
        rates.append(min(map(steady, got)))
    carried = 200 * 125_000 * 1436 / 1514
    assert rates[0] > 0.9 * carried
    assert rates[1] > 0.7 * rates[0]
    assert rates[2] > 0.4 * rates[0]


def test_one_bad_leaf_does_not_take_the_link_from_the_others() -> None:
    with lan(4, rate_bit_per_s=200_000_000, wire="mtu") as net:
        net.lose(0.2, [3])
        got, _ = send_for(net, 4.0)
    assert steady(got[0]) > 0.25 * 200 * 125_000


ADMITTING = """
import sys
import joinleaf
root = joinleaf.open_root("jl://:7400", open=True, capacity=100_000_000)
print("ready", flush=True)
sys.stdin.read()
root.close()
"""

ASKING = """
import json, sys
import joinleaf
from joinleaf.spi.constants import SERVICETYPE_GUARANTEED
flow = joinleaf.FlowSpec(token_rate=60_000_000, service_type=SERVICETYPE_GUARANTEED)
try:
    leaf = joinleaf.join(sys.argv[1], qos=flow, role="receiver", timeout=10)
except joinleaf.AdmissionRefusedError as error:
    print(json.dumps([error.code, str(error)]), flush=True)
else:
    print(json.dumps([0, "joined"]), flush=True)
    sys.stdin.read()
    leaf.close()
"""


def test_the_second_of_two_flows_of_sixty_per_cent_is_refused_with_the_numbers() -> None:
    with lan(2) as net, net.root.python(ADMITTING) as root:
        root.hear("ready")
        where = f"jl://{net.root.ipv4}:7400"
        with net.leaves[0].python(ASKING, where) as first:
            assert json.loads(first.hear("[")) == [0, "joined"]
            with net.leaves[1].python(ASKING, where) as second:
                code, text = json.loads(second.hear("["))
            assert code == 10045
            assert "60000000 bytes/s asked, 60000000 of 100000000 bytes/s in use" in text
            first.finish()
        with net.leaves[1].python(ASKING, where) as third:
            assert json.loads(third.hear("[")) == [0, "joined"]
            third.finish()
        root.finish()
