"""What the catalogue offers out of the box; each binds the core to one kind of carrier."""
