"""A stream that goes on where a connection broke."""

from __future__ import annotations

import io
import random

import pytest
from botocore.exceptions import IncompleteReadError
from botocore.response import StreamingBody

from phicrypt.core.broken_connections import MAX_ATTEMPTS, MendedBody
from phicrypt.core.byte_ranges import Span

STORED = random.Random(7).randbytes(100_000)


class Server:
    """Bodies of a span, each cut after so many bytes as ``cuts`` says; whole once it is used up."""

    def __init__(self, *cuts: int) -> None:
        self._cuts = list(cuts)
        self.asked: list[Span | None] = []

    def body_of(self, span: Span | None) -> StreamingBody:
        self.asked.append(span)
        start, end = span or (0, len(STORED))
        content = STORED[start:end]
        cut = self._cuts.pop(0) if self._cuts else len(content)
        return StreamingBody(io.BytesIO(content[:cut]), len(content))


def read_to_the_end(body: MendedBody) -> bytes:
    pieces = []
    while piece := body.read(8_192):
        pieces.append(piece)
    body.close()
    return b"".join(pieces)


@pytest.mark.parametrize("start", [0, 1_000, len(STORED)])
def test_what_arrived_is_not_asked_for_again(start: int) -> None:
    server = Server(20_000, 30_000, 0, 5)
    assert read_to_the_end(MendedBody(server.body_of, start, len(STORED))) == STORED[start:]
    if start == 1_000:
        assert [span.start for span in server.asked if span] == [1_000, 21_000, 51_000, 51_000, 51_005]
    if start == len(STORED):
        assert server.asked == [], "there is nothing to ask for"


def test_progress_starts_the_count_anew_and_a_place_that_always_breaks_ends_it() -> None:
    server = Server(*[5_000] * 12)
    assert read_to_the_end(MendedBody(server.body_of, 0, len(STORED))) == STORED
    server = Server(10_000, *[0] * 99)
    with pytest.raises(IncompleteReadError):
        read_to_the_end(MendedBody(server.body_of, 0, len(STORED)))
    assert len(server.asked) == 1 + MAX_ATTEMPTS - 1
