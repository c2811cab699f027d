"""Branch keys and beacon keys as values, and what a keyring needs of a place that holds them.

A branch key is a 32-byte key of one tenant that wraps data keys locally. It has an id, chosen once,
and versions, each named by a UUID (``framework/structures.md``, sections "Branch Key Materials" and
"Beacon Key Materials" of the AWS Encryption SDK specification).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Hashable
from typing import Final, Protocol
from zlib import crc32

from phicrypt.core.key_origin import KeyOrigin, branch_key_origin
from phicrypt.core.materials import KeyHolder
from phicrypt.core.steps import Steps, steps_of
from phicrypt.errors import ConfigurationError, KeyAccessError

BRANCH_KEY_LENGTH_BYTES: Final = 32
"""Length of branch keys and beacon keys."""
MAX_BRANCH_KEY_ID_LENGTH_BYTES: Final = 2_048
"""DynamoDB's bound on a partition key, and so on a branch key id in UTF-8."""

_VERSION: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def check_branch_key_id(branch_key_id: object) -> str:
    """The id, or ConfigurationError unless it is text of 1 to 2,048 bytes of UTF-8."""
    if not isinstance(branch_key_id, str):
        raise ConfigurationError(f"a branch key id is text, not {type(branch_key_id).__name__}")
    try:
        length = len(branch_key_id.encode())
    except UnicodeEncodeError:
        length = None
    if length is None:
        raise ConfigurationError("a branch key id must be valid Unicode text")
    if not 1 <= length <= MAX_BRANCH_KEY_ID_LENGTH_BYTES:
        raise ConfigurationError(
            f"a branch key id has 1 to {MAX_BRANCH_KEY_ID_LENGTH_BYTES} bytes of UTF-8, this one has {length}"
        )
    return branch_key_id


def check_version(version: object) -> str:
    """The version, or ConfigurationError unless it is a UUID in lower-case text form."""
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ConfigurationError("a branch key version is a UUID in lower-case text form")
    return version


class BranchKey(KeyHolder):
    """One version of a tenant's branch key, with its plaintext. Its ``repr`` shows no key bytes.

    Attributes:
        branch_key_id: the tenant's key id.
        version: UUID in lower-case text form.
        version_bytes: the same as 16 bytes, the form in encrypted data keys.
        key_bytes: 32 bytes.
        create_time: when this version was made, in the key store's ISO 8601 form; None if unknown.
        context: the custom pairs that were bound to the key when it was made.
        origin: for the audit trail: the call that opened the key, and as ``key_id`` the text
            ``<KMS key ARN>#<branch key id>/<version>``.
        is_proven: whether it has opened something, or two openings of it agreed (rule 28).
    """

    __slots__ = (
        "branch_key_id",
        "check_value",
        "context",
        "create_time",
        "is_proven",
        "key_bytes",
        "origin",
        "version",
        "version_bytes",
    )

    def __init__(
        self,
        branch_key_id: str,
        version: str,
        key_bytes: bytes,
        *,
        create_time: str | None = None,
        context: dict[str, str] | None = None,
        call: KeyOrigin | None = None,
    ) -> None:
        if len(key_bytes) != BRANCH_KEY_LENGTH_BYTES:
            raise ConfigurationError(
                f"a branch key has {BRANCH_KEY_LENGTH_BYTES} bytes, this one has {len(key_bytes)}"
            )
        self.branch_key_id = check_branch_key_id(branch_key_id)
        self.version = check_version(version)
        self.version_bytes = uuid.UUID(version).bytes
        self.key_bytes = key_bytes
        self.check_value = crc32(key_bytes)
        self.is_proven = False
        self.create_time = create_time
        self.context = dict(context or {})
        self.origin = branch_key_origin(f"{branch_key_id}/{version}", call)

    def is_intact(self) -> bool:
        """Whether the bytes are those that came: a kept key is used for long, in memory that may fail."""
        return crc32(self.key_bytes) == self.check_value

    def __repr__(self) -> str:
        return f"<BranchKey {self.branch_key_id!r} version {self.version}>"


class BeaconKey(KeyHolder):
    """A tenant's beacon key: 32 bytes from which searchable beacons are derived. Hidden in ``repr``."""

    __slots__ = ("branch_key_id", "check_value", "context", "key_bytes", "origin")

    def __init__(
        self,
        branch_key_id: str,
        key_bytes: bytes,
        *,
        context: dict[str, str] | None = None,
        call: KeyOrigin | None = None,
    ) -> None:
        if len(key_bytes) != BRANCH_KEY_LENGTH_BYTES:
            raise ConfigurationError(
                f"a beacon key has {BRANCH_KEY_LENGTH_BYTES} bytes, this one has {len(key_bytes)}"
            )
        self.branch_key_id = check_branch_key_id(branch_key_id)
        self.key_bytes = key_bytes
        self.check_value = crc32(key_bytes)
        self.context = dict(context or {})
        self.origin = branch_key_origin(f"{branch_key_id}/beacon", call)

    def is_intact(self) -> bool:
        """As of :class:`BranchKey`."""
        return crc32(self.key_bytes) == self.check_value

    def __repr__(self) -> str:
        return f"<BeaconKey {self.branch_key_id!r}>"


class BranchKeySource(Protocol):
    """What :class:`~phicrypt.keys.branch_keys.keyring.HierarchicalKeyring` needs of a branch key store."""

    @property
    def identity(self) -> Hashable:
        """What tells this store's keys from another's (rule 11): table, logical name, KMS key, clients."""
        ...

    def fetch_active(self, branch_key_id: str) -> BranchKey:
        """The version that encrypts now. Raises KeyAccessError where there is none or it is refused."""
        ...

    def fetch_version(self, branch_key_id: str, version: str) -> BranchKey:
        """One version, for decryption. Raises KeyAccessError where there is none or it is refused."""
        ...

    def on_purge(self, forget: Callable[[str], None]) -> None:
        """Have the bound method ``forget(branch_key_id)`` called after each shred; held weakly."""
        ...


def fetch_steps(source: BranchKeySource, branch_key_id: str, version: str | None) -> Steps[BranchKey]:
    """The active version (None) or the one asked for, within a use that leaves its own event.

    A store that knows steps writes no event of its own for them; another one is called as it is.
    """
    if version is None:
        return steps_of(source, "fetch_active", branch_key_id)
    return steps_of(source, "fetch_version", branch_key_id, version)


def no_such_branch_key(what: str, *, operation: str, table_arn: str | None = None) -> KeyAccessError:
    """The error for a branch key, version or beacon key that the store does not hold."""
    return KeyAccessError(
        f"the branch key store holds no {what}; check the branch key id, the logical name and the table",
        key_arn=table_arn,
        operation=operation,
        code="BranchKeyNotFound",
    )


def versions_disagree(active: BranchKey) -> KeyAccessError:
    """The error for an ACTIVE row and its version's row that open to different keys (rule 28)."""
    return KeyAccessError(
        f"the branch key's ACTIVE row and the row of its version {active.version} open to different keys, also "
        "when both were read again; nothing is sealed under a key that may not open again. Rotate the branch "
        "key; if that does not help, find out who changes KMS's answers or the table's rows",
        operation="Decrypt",
        code="BranchKeyVersionsDisagree",
        key_arn=active.origin.key_id,
    )
