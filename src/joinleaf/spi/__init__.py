"""The Winsock vocabulary as data, and the seam every provider implements. No I/O, no policy."""
