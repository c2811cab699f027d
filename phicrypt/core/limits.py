"""What a reader believes at most."""

from __future__ import annotations

from dataclasses import dataclass

from phicrypt.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what a reader believes of a message, checked before anything is allocated (rule 6).

    Attributes:
        max_encrypted_data_keys: more recipients than this are refused.
        max_header_length_bytes: whole header, authentication tag included.
        max_context_length_bytes: serialized encryption context.
        max_frame_length_bytes: longest frame; a stream holds a few of them in memory.
        max_spool_bytes: longest non-framed body (or S3 Encryption Client object) that is spooled.
        spool_memory_bytes: how much of a spool stays in memory before an unlinked file takes it.
    """

    max_encrypted_data_keys: int = 8
    max_header_length_bytes: int = 128 * 1024
    max_context_length_bytes: int = 0xFFFF
    max_frame_length_bytes: int = 16 * 1024 * 1024
    max_spool_bytes: int = 64 * 1024**3
    spool_memory_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} is a whole number above zero")
