"""A new data key is opened once before it seals anything: ``KmsKeyring(verify_data_keys=True)`` (rule 28)."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from phicrypt.core.key_origin import KeyOrigin, joined_origin
from phicrypt.core.kms_arn import KmsArn
from phicrypt.core.kms_calls import KmsAnswer, origin_of
from phicrypt.core.materials import KeyHolder
from phicrypt.core.steps import Steps
from phicrypt.errors import KeyAccessError
from phicrypt.keys.kms.answers import openings_disagree, plaintext_of


class MadeKey(KeyHolder):
    """A plaintext key and what KMS wrapped it to.

    Attributes:
        origin: the call, and those that verified the key, as the audit trail names them.
    """

    __slots__ = ("ciphertext", "origin", "plaintext_key")

    def __init__(self, plaintext_key: bytes, ciphertext: bytes, origin: KeyOrigin) -> None:
        self.plaintext_key = plaintext_key
        self.ciphertext = ciphertext
        self.origin = origin

    def __repr__(self) -> str:
        return f"<MadeKey by {self.origin.operation}>"


def verified(
    key: KmsArn, make: Callable[[], Steps[MadeKey]], open_: Callable[[bytes], Steps[KmsAnswer]]
) -> Steps[MadeKey]:
    """The key that ``make`` makes, once a separate Decrypt call gave the same.

    A disagreement is tried once more from the start, since either answer may be the changed one. Raises
    KeyAccessError; where the writer may not decrypt, the error says which permission the setting needs.
    """
    calls: list[KeyOrigin] = []
    try:
        for _ in range(2):
            made = yield from make()
            calls.append(made.origin)
            answer = yield from open_(made.ciphertext)
            calls.append(origin_of(answer, "Decrypt", key))
            opened = plaintext_of(answer, "Decrypt", key, len(made.plaintext_key))
            if compare_digest(opened, made.plaintext_key):
                calls.remove(made.origin)
                return MadeKey(made.plaintext_key, made.ciphertext, joined_origin(made.origin, *calls))
        raise openings_disagree(made.origin.operation or "", key, "a new data key")
    except KeyAccessError as refusal:
        # CloudTrail shows each call, believed or not (rule 22); the refused one names itself.
        others = tuple(call for call in calls if call.correlation_id != refusal.correlation_id)
        refusal.earlier_calls = (*others, *refusal.earlier_calls)
        if refusal.operation == "Decrypt" and refusal.code == "AccessDeniedException":
            refusal.args = (
                f"{refusal}. verify_data_keys=True opens each new data key: the writer needs kms:Decrypt",
            )
        raise
