"""Answers for steps without I/O: a driver's ``call`` that needs no client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phicrypt.core.kms_calls import KmsAnswer
from phicrypt.core.steps import AwsRequest


class Answers:
    """``run(steps, Answers({"Decrypt": {…}, ("eu-west-1", "Decrypt"): error}))``.

    By operation, or Region and operation: a response, an error that is raised, a callable that takes
    the request, or a list of these for one request after the other. KMS's responses become answers with
    a request id.
    """

    def __init__(self, answers: Mapping[Any, Any]) -> None:
        self._answers = answers
        self.requests: list[AwsRequest] = []

    def __call__(self, request: AwsRequest) -> Any:
        self.requests.append(request)
        exact = (request.region, request.operation)
        found = self._answers[exact if exact in self._answers else request.operation]
        if isinstance(found, list):
            found = found.pop(0)
        if callable(found):
            found = found(request)
        if isinstance(found, Exception):
            raise found
        if type(request).__name__ == "TableRequest":
            return found
        return KmsAnswer(found, (f"request-{len(self.requests)}",), f"correlation-{len(self.requests)}")

    async def call(self, request: AwsRequest) -> Any:
        """The same for :func:`phicrypt.core.steps.arun`, after other tasks had their turn."""
        import asyncio

        await asyncio.sleep(0)
        return self(request)

    @property
    def asked(self) -> list[tuple[str | None, str]]:
        return [(request.region, request.operation) for request in self.requests]
