"""One-to-many sessions for Python."""
