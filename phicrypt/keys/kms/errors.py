"""AWS's and the network's refusals as :class:`~phicrypt.errors.KeyAccessError`, saying what to do.

Texts name the key, the operation and the code. AWS's own text is added for denials (it names the policy) and
where one code has many causes, and never when a value of the call stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.answers import NO_ANSWER, UNEXPECTED_ANSWER
from phicrypt.errors import KEY_STORE_CODES, KeyAccessError
from phicrypt.keys.kms.key_stores import store_failure

if TYPE_CHECKING:
    from phicrypt.keys.kms.tagging import TaggedCall

_WRONG_CIPHERTEXT: Final = (
    "the encrypted data key or the context is not the one that this KMS key sealed: "
    "the message belongs to another key, or was changed, or the context differs"
)
ADVICE: Final = {
    "AccessDeniedException": "the caller may not use the key: allow {action} in its identity policy and in the "
    "key policy (or pass a grant token), and check the policy of the VPC endpoint",
    "DisabledException": "the key is disabled: enable it with kms:EnableKey",
    "KMSInvalidStateException": "the key's state forbids it (pending deletion, pending import, unavailable, or "
    "disabled): cancel the deletion or restore its material, then enable it",
    "CustomKeyStoreInvalidStateException": "the key store of the key is not connected: ask its operators",
    "NotFoundException": "there is no such key in this account and Region: check the ARN, the client's Region "
    "and the endpoint",
    "InvalidCiphertextException": _WRONG_CIPHERTEXT,
    "IncorrectKeyException": _WRONG_CIPHERTEXT,
    "InvalidKeyUsageException": "the key is made for another use: encryption needs KeyUsage ENCRYPT_DECRYPT, a "
    "shared secret KEY_AGREEMENT, and a suitable key spec",
    "InvalidGrantTokenException": "a grant token is not valid: ask for a new one",
    "InvalidArnException": "the ARN is not valid for this Region or endpoint",
    "LimitExceededException": "a KMS quota was passed: ask for a higher one",
    "ThrottlingException": "KMS throttled the calls beyond the retries: cache data keys longer, use the "
    "hierarchical keyring, or ask for a higher request quota",
    "DryRunOperationException": "the dry run succeeded and nothing was done",
    "ExpiredTokenException": "the session credentials have expired: renew them",
    "UnrecognizedClientException": "the credentials are not valid in this Region or partition",
    "InvalidSignatureException": "the request's signature did not verify: check the secret key and the clock",
    "NoCredentialsError": "no AWS credentials were found: configure a role, a profile or the environment",
    "SSLError": "the TLS certificate of the endpoint was not accepted: check the endpoint and the CA bundle",
    "UnsupportedOperationException": "the key is of a kind that cannot do this, such as a symmetric key where a "
    "public key is asked: name a key of another spec",
    "ParamValidationError": "botocore refused the parameters before sending them",
}
"""What to do about each code, for the user. A test compares the codes with botocore's model of KMS."""
_THROTTLING: Final = frozenset(
    ("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded")
)


def key_access_error(
    error: Exception,
    operation: str,
    key_arn: str | None,
    parameters: Mapping[str, Any],
    call: TaggedCall,
    *,
    is_botocore: bool,
) -> KeyAccessError | None:
    """The refusal that an exception of boto3 stands for; None for anything that is not botocore's.

    botocore's parsers raise a ValueError or TypeError where an answer's fields are not of their
    types; ``is_botocore`` tells a real client's from those of a fake, which are bugs of its author.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        return _from_answer(error.response, operation, key_arn, parameters, call)
    if isinstance(error, BotoCoreError) or (is_botocore and isinstance(error, ValueError | TypeError)):
        return _from_botocore(error, operation, key_arn, call)
    return None


def _from_answer(
    response: Mapping[str, Any],
    operation: str,
    key_arn: str | None,
    parameters: Mapping[str, Any],
    call: TaggedCall,
) -> KeyAccessError:
    code = str(response.get("Error", {}).get("Code", "Unknown"))
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode") or 0
    is_outage, is_retryable = status >= 500, status >= 500 or code in _THROTTLING
    message = str(response.get("Error", {}).get("Message", ""))
    failure = store_failure(code, message)
    if failure is not None:
        advice, is_outage, is_retryable = failure.advice, failure.is_outage, failure.is_retryable
    elif code in (NO_ANSWER, UNEXPECTED_ANSWER):
        advice = about_the_answer(response)
    elif code in _THROTTLING:
        advice = ADVICE["ThrottlingException"]
    elif is_outage:
        advice = "the service failed in this Region: the same call may succeed later, or in another Region"
    else:
        advice = ADVICE.get(code, "AWS refused the call").format(action=f"kms:{operation}")
    text = f"{operation} with KMS key {key_arn or 'of the client'} failed with {code}: {advice}"
    if code == "AccessDeniedException" or code in KEY_STORE_CODES:
        text += _quoted(message, parameters)
    request_id = metadata.get("RequestId")
    return KeyAccessError(
        text,
        operation=operation,
        code=code,
        key_arn=key_arn,
        request_id=request_id,
        is_retryable=is_retryable,
        is_outage=is_outage,
        request_ids=tuple(call.request_ids) or ((request_id,) if request_id else ()),
        correlation_id=call.correlation_id,
        unanswered_attempts=call.unanswered_attempts,
    )


def about_the_answer(response: Mapping[str, Any]) -> str:
    """What to do about an answer that was not believed; its judge quotes nothing of it (rule 27)."""
    said = response.get("Error", {})
    if said.get("Code") == UNEXPECTED_ANSWER:
        return f"{said.get('Message', '')}; nothing of it was used"
    return (
        f"{said.get('Message', '')}. A proxy, a gateway or the network cut or replaced it: the same call may "
        "succeed later, or in another Region"
    )


def _from_botocore(error: Exception, operation: str, key_arn: str | None, call: TaggedCall) -> KeyAccessError:
    from botocore.exceptions import ConnectionError as BotocoreConnectionError
    from botocore.exceptions import HTTPClientError, SSLError

    code = type(error).__name__
    is_outage = isinstance(error, BotocoreConnectionError | HTTPClientError) and not isinstance(error, SSLError)
    if is_outage:
        advice = "the endpoint did not answer: check the Region, the network path (VPC endpoint, proxy) and DNS"
    else:
        advice = ADVICE.get(code, "the call could not be made; see the credentials and the client's settings")
    return KeyAccessError(
        f"{operation} with KMS key {key_arn or 'of the client'} failed with {code}: {advice}",
        operation=operation,
        code=code,
        key_arn=key_arn,
        request_id=call.request_ids[-1] if call.request_ids else None,
        is_retryable=is_outage,
        is_outage=is_outage,
        request_ids=tuple(call.request_ids),
        correlation_id=call.correlation_id,
        unanswered_attempts=call.unanswered_attempts,
    )


def _quoted(text: str, parameters: Mapping[str, Any]) -> str:
    """AWS's text for a denial, or nothing if a context value of the call stands in it."""
    context = parameters.get("EncryptionContext", {})
    if not text or any(value and value in text for value in context.values()):
        return ""
    return f" (AWS: {text[:400]})"
