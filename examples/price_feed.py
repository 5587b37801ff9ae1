"""A feed with a door: only listeners with a token get in, and the publisher knows who listens.

Run it as it is for a demonstration in one process, or in two terminals:

    python examples/price_feed.py publish jl://127.0.0.1:7410
    python examples/price_feed.py listen jl://127.0.0.1:7410 blue
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time

import joinleaf

TOKENS = {b"blue", b"green"}


def publish(address: str, prices: int) -> None:
    def admit(request: joinleaf.Request) -> joinleaf.Decision:
        if request.data in TOKENS:
            return request.accept(b"tick size 0.01")
        return request.reject(message="no valid token")

    with joinleaf.open_root(address, admit=admit, role="sender", slow="drop") as root:
        print("listen at", root.address, flush=True)
        root.wait_for_leaves(1, timeout=60)
        price = 100.0
        for number in itertools.islice(itertools.count(), prices):
            price += random.choice((-0.01, 0.0, 0.01))
            root.send(f"{number} {price:.2f}".encode())
            time.sleep(0.001)
        for leaf in root.leaves:
            print(f"{leaf.name}: {leaf.dropped} missed")


def listen(address: str, token: bytes) -> int:
    received = 0
    with joinleaf.join(address, data=token, role="receiver") as feed:
        print("welcome:", feed.welcome.decode())
        for message in feed:
            received += 1
            if message.gap:
                print("missed", message.gap)
    print("received", received)
    return received


def demonstrate() -> None:
    publisher = threading.Thread(target=publish, args=("jl://127.0.0.1:7411", 200))
    publisher.start()
    while True:
        try:
            received = listen("jl://127.0.0.1:7411", b"blue")
            break
        except joinleaf.JoinRefusedError:
            time.sleep(0.05)  # the publisher is not there yet
    publisher.join()
    assert received > 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["publish", address]:
            publish(address, 1_000_000)
        case ["listen", address, token]:
            listen(address, token.encode())
        case _:
            demonstrate()
