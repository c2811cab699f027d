"""What an encrypted client takes over from boto3's as it is, each method made by name (no ``__getattr__``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from phicrypt.core.materials import KeyHolder
from phicrypt.errors import UnsupportedOperationError
from phicrypt.s3.in_clear import check_tag_set
from phicrypt.s3.operations import OPERATIONS, Treatment, check_members, check_parameters
from phicrypt.s3.session import S3Session

_WAITERS: Final = ("bucket_exists", "bucket_not_exists", "object_exists", "object_not_exists")
"""All of S3's waiters; they ask for existence only."""
_WITHOUT_BYTES: Final = ("head_object", "list_objects_v2", "abort_multipart_upload")
"""Operations that are not harmless, and yet carry no object's bytes in either direction."""


class ForwardedOperations(KeyHolder):
    """The harmless operations, which are forwarded, and the refused ones, which say why."""

    _s3_session: S3Session

    @property
    def meta(self) -> Any:
        """boto3's description of the underlying client."""
        return self._s3_session.client.meta

    @property
    def exceptions(self) -> Any:
        """boto3's modelled exceptions, such as ``exceptions.NoSuchKey``."""
        return self._s3_session.client.exceptions

    def get_paginator(self, operation_name: str) -> Any:
        """boto3's paginator of a listing operation."""
        operation = OPERATIONS.get(operation_name)
        if operation is None or operation.treatment is Treatment.REFUSED:
            raise UnsupportedOperationError(f"{operation_name} is not an operation that phicrypt forwards")
        return CheckedPaginator(operation_name, self._s3_session.client.get_paginator(operation_name))

    def can_paginate(self, operation_name: str) -> bool:
        """Whether :meth:`get_paginator` knows the operation."""
        return bool(self._s3_session.client.can_paginate(operation_name))

    @property
    def waiter_names(self) -> list[str]:
        """What :meth:`get_waiter` knows."""
        return list(_WAITERS)

    def get_waiter(self, waiter_name: str) -> Any:
        """boto3's waiter; all of S3's wait for the existence of a bucket or an object."""
        if waiter_name not in _WAITERS:
            raise UnsupportedOperationError(f"the waiter {waiter_name!r} is not one that phicrypt has classed")
        return self._s3_session.client.get_waiter(waiter_name)

    def generate_presigned_url(
        self, ClientMethod: str, Params: Any = None, ExpiresIn: int = 3600, HttpMethod: str | None = None
    ) -> str:
        """boto3's ``generate_presigned_url``, for operations that carry no object's bytes."""
        operation = OPERATIONS.get(ClientMethod)
        if operation is None:
            raise UnsupportedOperationError(f"{ClientMethod} is not an operation that phicrypt has classed")
        if operation.treatment is not Treatment.HARMLESS and ClientMethod not in _WITHOUT_BYTES:
            raise UnsupportedOperationError(
                f"a presigned URL of {ClientMethod} would move an object's bytes past the encryption: uploads "
                "would be stored in plaintext, downloads would hand out ciphertext"
            )
        check_members(ClientMethod, Params or {})
        url: str = self._s3_session.client.generate_presigned_url(ClientMethod, Params, ExpiresIn, HttpMethod)
        return url

    def generate_presigned_post(self, *_args: Any, **_parameters: Any) -> NoReturn:
        """Refused: a form upload stores plaintext."""
        raise UnsupportedOperationError("a presigned form upload would be stored in plaintext")

    def close(self) -> None:
        """Close the connections of the underlying client."""
        self._s3_session.client.close()


class CheckedPaginator:
    """boto3's paginator, with the members of each request checked (rule 17)."""

    def __init__(self, operation_name: str, paginator: Any) -> None:
        self._operation_name = operation_name
        self._paginator = paginator

    def paginate(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        """boto3's page iterator, an object with ``search`` and ``build_full_result``."""
        members = {name: value for name, value in parameters.items() if name != "PaginationConfig"}
        check_members(self._operation_name, members)
        pages: Iterator[dict[str, Any]] = self._paginator.paginate(**parameters)
        return pages


def put_object_tagging(s3_session: S3Session, parameters: Mapping[str, Any], own: object) -> dict[str, Any]:
    """boto3's ``put_object_tagging``; tags stand in clear, so they pass the PHI guard."""
    check_tag_set(s3_session.phi_session.guard, parameters.get("Tagging", {}).get("TagSet", ()))
    return dict(s3_session.client.put_object_tagging(**parameters))


def restore_object(s3_session: S3Session, parameters: Mapping[str, Any], own: object) -> dict[str, Any]:
    """boto3's ``restore_object``, without its select form, which would store query results."""
    request = parameters.get("RestoreRequest", {})
    if unknown := set(request) - {"Days", "GlacierJobParameters", "Tier", "Description"}:
        raise UnsupportedOperationError(
            f"restore_object: {sorted(unknown)} are refused: S3 Select reads plaintext"
        )
    return dict(s3_session.client.restore_object(**parameters))


def _forwarding(operation_name: str) -> Callable[..., dict[str, Any]]:
    def forward(self: ForwardedOperations, **parameters: Any) -> dict[str, Any]:
        check_parameters(self._s3_session.client, operation_name, parameters)
        answer: dict[str, Any] = getattr(self._s3_session.client, operation_name)(**parameters)
        return answer

    forward.__doc__ = f"boto3's ``{operation_name}``: it carries no object's bytes, and is forwarded."
    return forward


def _refusing(operation_name: str) -> Callable[..., NoReturn]:
    reason = OPERATIONS[operation_name].reason

    def refuse(self: ForwardedOperations, **_parameters: Any) -> NoReturn:
        raise UnsupportedOperationError(f"{operation_name} is refused: {reason}")

    refuse.__doc__ = f"Refused: {reason}."
    return refuse


for _name, _operation in OPERATIONS.items():
    if _operation.treatment in (Treatment.HARMLESS, Treatment.REFUSED):
        _method: Any = (_forwarding if _operation.treatment is Treatment.HARMLESS else _refusing)(_name)
        _method.__name__, _method.__qualname__ = _name, f"ForwardedOperations.{_name}"
        setattr(ForwardedOperations, _name, _method)
