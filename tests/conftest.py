"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says nothing about whether it is right, and much about who else is
# using the machine.
settings.register_profile("joinleaf", deadline=None)
settings.load_profile("joinleaf")
