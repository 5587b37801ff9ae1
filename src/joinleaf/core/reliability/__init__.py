"""The reliable one-to-many stream, sans-I/O: units out, reports back, repair, flow control."""
