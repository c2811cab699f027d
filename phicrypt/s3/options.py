"""The settings of one encrypted S3 client, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypedDict

from phicrypt.core.context import AuditContext, plain_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import Keyring
from phicrypt.core.required_context import required_names
from phicrypt.errors import ConfigurationError
from phicrypt.formats.esdk.sealing import check_frame_length

READ_FORMATS: Final = ("esdk", "s3ec-v3", "s3ec-v2", "s3ec-instruction-files")
"""What ``read_formats`` may name; each is switched on by name (rule 7)."""
MIN_PART_SIZE_BYTES: Final = 5 * 1024**2
"""S3's own bound for every part but the last."""
MAX_PART_SIZE_BYTES: Final = 5 * 1024**3 - 64 * 1024**2
"""S3's bound of 5 GiB, less room for the overhead of the frames."""
MAX_PARTS: Final = 10_000
DEFAULT_PART_SIZE_BYTES: Final = 8 * 1024**2
DEFAULT_MEMORY_BYTES: Final = 72 * 1024**2


class S3Settings(TypedDict, total=False):
    """The settings of ``phi.s3(client, …)``; see :class:`phicrypt.s3.client.S3Client` for what each means."""

    bind_location: bool
    logical_buckets: Mapping[str, str] | None
    context: Mapping[str, str] | AuditContext | None
    read_formats: Iterable[str]
    format: Literal["esdk", "s3ec"]
    signed: bool
    frame_length_bytes: int | None
    part_size_bytes: int
    max_memory_bytes: int
    required_context: Iterable[str] | None


@dataclass(frozen=True, slots=True)
class S3Options:
    """See :class:`phicrypt.s3.client.S3Client` for what each setting means."""

    bind_location: bool
    logical_buckets: Mapping[str, str]
    context: Mapping[str, str]
    read_formats: frozenset[str]
    format: Literal["esdk", "s3ec"]
    signed: bool
    frame_length_bytes: int
    part_size_bytes: int
    max_memory_bytes: int
    required_context: frozenset[str]
    limits: ReadLimits

    @classmethod
    def checked(
        cls,
        limits: ReadLimits,
        default_frame_length_bytes: int,
        default_required_context: frozenset[str],
        *,
        bind_location: bool = True,
        logical_buckets: Mapping[str, str] | None = None,
        context: Mapping[str, str] | AuditContext | None = None,
        read_formats: Iterable[str] = ("esdk",),
        format: str = "esdk",  # noqa: A002  (the public name of the setting)
        signed: bool = False,
        frame_length_bytes: int | None = None,
        part_size_bytes: int = DEFAULT_PART_SIZE_BYTES,
        max_memory_bytes: int = DEFAULT_MEMORY_BYTES,
        required_context: Iterable[str] | None = None,
    ) -> S3Options:
        """The settings, or ConfigurationError for one that is wrong."""
        if isinstance(read_formats, str):
            raise ConfigurationError("read_formats is a collection of names, such as ('esdk', 's3ec-v3')")
        names = frozenset(read_formats)
        if not names or names - set(READ_FORMATS):
            raise ConfigurationError(f"read_formats names formats among {READ_FORMATS}, got {sorted(names)}")
        if "s3ec-instruction-files" in names and not names & {"s3ec-v3", "s3ec-v2"}:
            raise ConfigurationError(
                "instruction files belong to 's3ec-v3' or 's3ec-v2' objects; name one of them"
            )
        if format not in ("esdk", "s3ec"):
            raise ConfigurationError(f"format is 'esdk' or 's3ec', not {format!r}")
        if format == "s3ec" and signed:
            raise ConfigurationError("the S3 Encryption Client format has no signatures; signed=True needs 'esdk'")
        required = default_required_context if required_context is None else required_names(required_context)
        if format == "s3ec":
            refuse_required_context(required)
        frame_length = default_frame_length_bytes if frame_length_bytes is None else frame_length_bytes
        check_frame_length(frame_length, limits)
        check_part_size(part_size_bytes, frame_length)
        if max_memory_bytes < 1:
            raise ConfigurationError("max_memory_bytes is above zero")
        return cls(
            bind_location=bind_location,
            logical_buckets=dict(logical_buckets or {}),
            context=plain_context(context),
            read_formats=names,
            format="s3ec" if format == "s3ec" else "esdk",
            signed=signed,
            frame_length_bytes=frame_length,
            part_size_bytes=part_size_bytes,
            max_memory_bytes=max_memory_bytes,
            required_context=required,
            limits=limits,
        )


def refuse_required_context(names: Iterable[str]) -> None:
    """Raise ConfigurationError if there are any: S3 Encryption Client objects store every pair (rule 35)."""
    if declared := sorted(names):
        raise ConfigurationError(
            f"required_context declares {', '.join(map(repr, declared))}, and objects of the S3 Encryption Client "
            "store every pair of their context: give their client required_context=() and pairs that may be stored"
        )


def check_part_size(part_size_bytes: int, frame_length_bytes: int) -> None:
    """Raise ConfigurationError unless S3 takes parts of this size and they hold whole frames."""
    if not MIN_PART_SIZE_BYTES <= part_size_bytes <= MAX_PART_SIZE_BYTES:
        raise ConfigurationError(
            f"part_size_bytes is from {MIN_PART_SIZE_BYTES} to {MAX_PART_SIZE_BYTES}, {part_size_bytes} came"
        )
    if part_size_bytes % frame_length_bytes:
        raise ConfigurationError(
            f"part_size_bytes is a multiple of the frame length of {frame_length_bytes} bytes, "
            f"{part_size_bytes} came"
        )


def check_s3ec_keyring(keyring: Keyring) -> str:
    """The ARN of the one KMS key of the keyring; ConfigurationError for any other keyring (rule 16)."""
    from phicrypt.keys.kms.keyring import KmsKeyring

    if not isinstance(keyring, KmsKeyring) or keyring.key_arn is None:
        raise ConfigurationError(
            "S3 Encryption Client objects hold one data key wrapped by KMS: their keyring is a KmsKeyring with a "
            f"key ARN, not {type(keyring).__name__}"
        )
    return keyring.key_arn
