"""What every S3 verb works on, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from phicrypt.core.materials import KeyHolder
from phicrypt.core.required_context import RequiredPairs
from phicrypt.s3.options import S3Options
from phicrypt.session import Session

Call = Callable[..., dict[str, Any]]


class Boto3S3(Protocol):
    """What is called of boto3's own client."""

    meta: Any
    exceptions: Any
    get_object: Call
    head_object: Call
    put_object: Call
    copy_object: Call
    list_objects_v2: Call
    get_object_tagging: Call
    put_object_tagging: Call
    restore_object: Call
    create_multipart_upload: Call
    upload_part: Call
    upload_part_copy: Call
    complete_multipart_upload: Call
    abort_multipart_upload: Call
    generate_presigned_url: Callable[..., str]
    get_paginator: Callable[[str], Any]
    can_paginate: Callable[[str], bool]
    get_waiter: Callable[[str], Any]
    close: Callable[[], None]


class WriteGuard(Protocol):
    """Refuses writes to buckets that are not private; see :mod:`phicrypt.posture.write_guard`."""

    def check(self, bucket: str) -> None: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class S3Session(KeyHolder):
    """Keys, a boto3 client and settings: a value that never changes.

    Attributes:
        phi_session: keys, guard, audit trail and bounds.
        client: boto3's own client, which carries ciphertext only.
        options: the settings.
        write_guard: asked before anything is sent; None with ``require_private_bucket=False``.
        header_rests: by bucket, how many bytes the headers seen there had beside their contexts.
        spare_buffers: memory for the ciphertext of one ``put_object``, or none while it is used.
    """

    phi_session: Session
    client: Boto3S3
    options: S3Options
    write_guard: WriteGuard | None = None
    header_rests: dict[str, int] = field(default_factory=dict)
    spare_buffers: list[bytearray] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<S3Session writing {self.options.format}>"


class Demands(NamedTuple):
    """What the caller of one read demands.

    Attributes:
        pairs: the caller's pairs that the object must store, checked and guarded; None for ``ANY_CONTEXT``.
        required: the caller's pairs that it must be bound to and must not store (rule 35).
        require_signed, allow_uncommitted: as of ``PhiCrypt.decrypt``.
        operation: how the audit trail names the read.
    """

    pairs: Mapping[str, str] | None
    required: RequiredPairs
    require_signed: bool
    allow_uncommitted: bool
    operation: str

    def __repr__(self) -> str:
        return f"<Demands, {'any context' if self.pairs is None else f'{len(self.pairs)} pairs'}>"
