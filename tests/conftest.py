"""Settings of every test."""

from __future__ import annotations

from hypothesis import settings

# A slow machine is not a failure: nothing in the tests asserts time.
settings.register_profile("phicrypt", deadline=None)
settings.load_profile("phicrypt")
