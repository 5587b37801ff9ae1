"""Everybody hears everybody: a rooted session with a nonrooted data plane.

Run it as it is for a demonstration in one process, or in several terminals:

    python examples/chat.py host jl://127.0.0.1:7420?plane=nonrooted
    python examples/chat.py jl://127.0.0.1:7420?plane=nonrooted Ada
"""

from __future__ import annotations

import sys
import threading

import joinleaf


def host(address: str) -> None:
    with joinleaf.open_root(address, role="receiver") as root:
        print("come to", root.address)
        for event in root.events():
            print(event)


def talk(address: str, name: str) -> None:
    with joinleaf.join(address, name=name) as room:
        reader = threading.Thread(target=show, args=(room,), daemon=True)
        reader.start()
        for line in sys.stdin:
            room.send(f"{name}: {line.rstrip()}".encode())


def show(room: joinleaf.Leaf) -> None:
    for message in room:
        print(message.data.decode(errors="replace"))


def demonstrate() -> None:
    with joinleaf.open_root("jl://127.0.0.1:0?plane=nonrooted") as root:
        ada, bob, eve = (joinleaf.join(root.address, name=name) for name in ("Ada", "Bob", "Eve"))
        root.wait_for_leaves(3, timeout=10)
        ada.send(b"Ada: hello everybody")
        for listener in (bob, eve, root):
            message = listener.receive(timeout=10)
            print(message.sender, message.data.decode())
            assert message.data == b"Ada: hello everybody"
        try:
            ada.receive(timeout=0)
        except joinleaf.SessionTimeoutError:
            print("Ada does not hear herself")
        for leaf in (ada, bob, eve):
            leaf.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["host", address]:
            host(address)
        case [address, name]:
            talk(address, name)
        case _:
            demonstrate()
