"""The local AWS loses no conditional write that it acknowledged, whoever writes at the same time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import moto.dynamodb.models
import pytest
from botocore.exceptions import ClientError
from support.lost_updates import TABLES, count_in, create_counters

from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import LocalAws

TESTS = Path(__file__).parents[1]
UPDATES_PER_THREAD = 3


@pytest.fixture
def aws() -> Iterator[LocalAws]:
    with local_aws() as stack:
        yield stack


def hold_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto pauses between judging a condition and writing until two have judged, or one has waited."""
    both_judged = threading.Barrier(2)
    make_parser = moto.dynamodb.models.create_condition_expression_parser

    def make_holding_parser(*arguments: Any) -> Any:
        parser = make_parser(*arguments)
        parse = parser.parse

        def parse_and_hold() -> Any:
            condition = parse()
            judge = condition.expr

            def judge_and_hold(item: Any) -> Any:
                verdict = judge(item)
                with contextlib.suppress(threading.BrokenBarrierError):
                    both_judged.wait(0.5)
                return verdict

            condition.expr = judge_and_hold
            return condition

        parser.parse = parse_and_hold
        return parser

    monkeypatch.setattr(moto.dynamodb.models, "create_condition_expression_parser", make_holding_parser)


def test_of_two_conditional_writes_that_meet_one_is_refused(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_counters(aws.client("dynamodb"))
    hold_verdicts(monkeypatch)

    def increment(client: Any) -> bool:
        try:
            client.update_item(
                TableName=TABLES["plain"],
                Key={"id": {"S": "counter"}},
                UpdateExpression="SET n = :new",
                ConditionExpression="n = :old",
                ExpressionAttributeValues={":old": {"N": "0"}, ":new": {"N": "1"}},
            )
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"
            return False
        return True

    clients = [aws.client("dynamodb") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        acknowledged = list(pool.map(increment, clients))
    assert sorted(acknowledged) == [False, True]


def test_four_processes_of_two_threads_lose_no_update(aws: LocalAws) -> None:
    create_counters(aws.client("dynamodb"))
    command = [sys.executable, "-m", "support.lost_updates", aws.endpoint_url, str(UPDATES_PER_THREAD)]
    writers = [subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    endings = [writer.communicate(timeout=300)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    for table in TABLES:
        acknowledged = sum(int(ending.split(f"{table}=")[1].split()[0]) for ending in endings)
        assert acknowledged == 4 * 2 * UPDATES_PER_THREAD
        assert count_in(aws.client("dynamodb"), table) == acknowledged
