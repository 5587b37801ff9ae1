"""The only folder with sockets, threads and clocks."""
