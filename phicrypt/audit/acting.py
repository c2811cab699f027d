"""On whose behalf the current thread or task uses keys: actor, purpose, recipient (rule 20)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, NamedTuple

from phicrypt.audit.events import Purpose
from phicrypt.errors import ConfigurationError

_MAX_NAME_LENGTH: Final = 256


class Acting(NamedTuple):
    """On whose behalf the current thread or task works."""

    actor: str | None = None
    purpose: str | None = None
    recipient: str | None = None
    break_glass: str | None = None


_acting: ContextVar[Acting] = ContextVar("phicrypt_acting", default=Acting())  # noqa: B039 - immutable
current_acting: Final[Callable[[], Acting]] = _acting.get
"""Who acts now, in this thread or task."""


@contextmanager
def acting_as(
    actor: str,
    purpose: Purpose | str | None = None,
    *,
    recipient: str | None = None,
    break_glass: str | None = None,
) -> Iterator[Acting]:
    """Uses inside the block are recorded as this actor's. Threads and asyncio tasks keep their own.

    Args:
        actor: an opaque id of the person or service, at most 256 characters, such as ``"dr-4711"``.
        purpose: why; a :class:`Purpose` or its text.
        recipient: who receives what is disclosed, for the accounting of disclosures (45 CFR 164.528);
            the same form as an actor.
        break_glass: the id of a break-glass grant.

    A reader or writer that is opened inside keeps its actor after the block has ended (rule 20).
    Raises ConfigurationError for an actor or a purpose that is not one.
    """
    for name in (actor,) if recipient is None else (actor, recipient):
        if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
            raise ConfigurationError(f"an actor or a recipient is 1 to {_MAX_NAME_LENGTH} printable characters")
    checked = None
    if purpose is not None:
        with suppress(ValueError, TypeError):
            checked = Purpose(purpose).value
        # Not in a handler: Python's error holds the value (rule 32).
        if checked is None:
            raise ConfigurationError(f"purpose is one of {', '.join(each.value for each in Purpose)}")
    acting = Acting(actor, checked, recipient, break_glass)
    before, token = _acting.get(), None
    try:
        token = _acting.set(acting)
        yield acting
    finally:
        if token is None:  # interrupted right after it was set: the next uses are not this actor's
            _acting.set(before)
        else:
            _acting.reset(token)
