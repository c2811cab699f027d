"""The strict KMS's memory of each key's last use."""

from __future__ import annotations

from typing import Any

from phicrypt.testing.strict_kms_operations import KmsError, Operations, Request


class LastUseOperations(Operations):
    """Tracks uses as AWS does: successes only, each Region's key and both keys of ReEncrypt by themselves."""

    def GetKeyLastUsage(self, request: Request) -> dict[str, Any]:
        identifier = request.parameters["KeyId"]
        if "alias/" in identifier:
            raise KmsError("InvalidArnException", f"Invalid keyId {identifier}")
        key = self.account.find(identifier, request.region)
        self.account.authorize(request, key)
        return {
            "KeyId": key.arn,
            "KeyLastUsage": dict(key.last_use),
            "TrackingStartDate": key.created,
            "KeyCreationDate": key.created,
        }

    def note_success(self, request: Request) -> None:
        """After an operation that succeeded."""
        for key in self.used:
            key.last_use = {
                "Operation": request.operation,
                "Timestamp": request.time,
                "CloudTrailEventId": request.event_id,
                "KmsRequestId": request.request_id,
            }
