"""Bytes to values and back: frames, control bodies, batches. Every size is bounded."""
