"""Runs :mod:`tests.mutants.every`."""

from . import main

raise SystemExit(main())
