"""Keys and what they are used for: group keys by epoch, shared secrets, replay windows."""
