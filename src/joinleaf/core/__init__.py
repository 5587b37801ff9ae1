"""The protocol without I/O: inputs and the time go in, actions and bytes come out.

No clock, socket, thread or random number is reached from here; ``drivers/`` and ``testing/`` run
it.
"""
