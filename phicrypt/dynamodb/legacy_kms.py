"""AWS's materials provider of the DynamoDB Encryption Client, with its calls of KMS made as phicrypt makes them.

The library sends an item's wrapped key to KMS without saying under which key it is to be opened, so that whoever
writes the table chooses the key. Here KMS is asked under one key, its answer is judged, and the call is recorded.
"""

from __future__ import annotations

import base64
import threading
from importlib import import_module
from typing import Any, Final

from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.kms_arn import KmsArn
from phicrypt.core.kms_calls import origin_of
from phicrypt.core.steps import KmsRequest
from phicrypt.errors import ConfigurationError
from phicrypt.keys.kms.answers import plaintext_of, unexpected_answer
from phicrypt.keys.kms.clients import KmsClients

_KEY_LENGTH_BYTES: Final = 32
_MAX_WRAPPED_LENGTH_BYTES: Final = 6_144
_WRAPPED_KEY: Final = "amzn-ddb-env-key"
_CONTENT_ALGORITHM: Final = "amzn-ddb-env-alg"
_SIGNATURE_ALGORITHM: Final = "amzn-ddb-sig-alg"


def library(module: str) -> Any:
    """A module of ``dynamodb_encryption_sdk``; ConfigurationError where it is not installed."""
    found = None
    try:
        found = import_module(f"dynamodb_encryption_sdk.{module}")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("dynamodb_encryption_sdk"):
            raise
    if found is None:
        raise ConfigurationError(
            "items of the DynamoDB Encryption Client are opened with AWS's library for it: "
            "pip install 'phicrypt[legacy]'"
        )
    return found


def pinned_provider(key: KmsArn, clients: KmsClients) -> Any:
    """An ``AwsKmsCryptographicMaterialsProvider`` that opens under one key, and seals nothing.

    Its ``last_call()`` gives the call that opened this thread's latest item. Raises ConfigurationError without the
    library, or without a client of the key's Region.
    """
    clients.check_region(key.region)
    base = library("material_providers.aws_kms").AwsKmsCryptographicMaterialsProvider

    class PinnedProvider(base):  # type: ignore[misc, valid-type]
        """See :func:`pinned_provider`."""

        def __init__(self) -> None:
            super().__init__(key_id=str(key))
            self._seen = threading.local()

        def last_call(self) -> KeyOrigin | None:
            """Taken out: each is told once."""
            call: KeyOrigin | None = self._seen.__dict__.pop("call", None)
            return call

        def encryption_materials(self, encryption_context: Any) -> Any:
            raise ConfigurationError("nothing is written in the format of the DynamoDB Encryption Client")

        def _decrypt_initial_material(self, encryption_context: Any) -> bytes:
            described = encryption_context.material_description
            context = self._kms_encryption_context(
                encryption_context=encryption_context,
                encryption_description=described[_CONTENT_ALGORITHM],
                signing_description=described[_SIGNATURE_ALGORITHM],
            )
            plaintext, self._seen.call = _unwrapped(key, clients, described[_WRAPPED_KEY], context)
            return plaintext

    return PinnedProvider()


def _unwrapped(key: KmsArn, clients: KmsClients, wrapped: str, context: dict[str, str]) -> tuple[bytes, KeyOrigin]:
    ciphertext = base64.b64decode(wrapped, validate=True)
    if not 1 <= len(ciphertext) <= _MAX_WRAPPED_LENGTH_BYTES or not all(context.values()):
        raise ValueError  # botocore would refuse the call, and it is the item that is wrong
    parameters = {"KeyId": str(key), "CiphertextBlob": ciphertext, "EncryptionContext": context}
    answer = clients.ask(KmsRequest(key.region, "Decrypt", parameters))
    if answer.response.get("KeyId") != str(key):
        raise unexpected_answer("Decrypt", key, "the answer names another key", answer)
    return plaintext_of(answer, "Decrypt", key, _KEY_LENGTH_BYTES), origin_of(answer, "Decrypt", key)
