"""Settings of every test."""

from __future__ import annotations

import functools

import botocore.session
from hypothesis import settings

# Reading the services' models is most of what a session costs: all sessions of a process share them.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# A slow machine is not a failure: nothing in the tests asserts time.
settings.register_profile("phicrypt", deadline=None)
settings.load_profile("phicrypt")
