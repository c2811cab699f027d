"""A process that counts in plain and in encrypted items, and prints how often it was acknowledged.

Arguments: endpoint URL, updates per thread and table, counters per table (1); two threads. Start several at once
and compare :func:`count_in` with the sum of what they print.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.testing.local_stack import session_without_profile

TABLES = {"plain": "plain-counters", "encrypted": "encrypted-counters"}
KEY = {"id": {"S": "counter"}}
"""The first counter's; others have a number behind."""
CONFLICT = "ConditionalCheckFailedException"


def encrypting(raw_client: Any, endpoint_url: str | None = None) -> Any:
    config = TableConfig(
        TABLES["encrypted"],
        partition_key="id",
        actions={"id": Action.SIGN_ONLY, "n": Action.ENCRYPT_AND_SIGN},
    )
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))))
    endpoint = endpoint_url or raw_client.meta.endpoint_url
    session = session_without_profile("us-east-1")
    return phi.dynamodb.client([config], session=session, endpoint_url=endpoint)


def keys_of(counters: int) -> list[dict[str, Any]]:
    return [KEY, *({"id": {"S": f"counter-{number}"}} for number in range(1, counters))]


def create_counters(raw_client: Any, counters: int = 1) -> None:
    """Both tables, with counters that stand at 0."""
    for table in TABLES.values():
        raw_client.create_table(
            TableName=table,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    encrypted = encrypting(raw_client)
    for item_key in keys_of(counters):
        raw_client.put_item(TableName=TABLES["plain"], Item={**item_key, "n": {"N": "0"}})
        encrypted.put_item(TableName=TABLES["encrypted"], Item={**item_key, "n": {"N": "0"}})


def count_in(raw_client: Any, table: str, counters: int = 1) -> int:
    client = encrypting(raw_client) if table == "encrypted" else raw_client
    answers = [
        client.get_item(TableName=TABLES[table], Key=item_key, ConsistentRead=True)
        for item_key in keys_of(counters)
    ]
    return sum(int(answer["Item"]["n"]["N"]) for answer in answers)


def _increment_plain(client: Any, item_key: dict[str, Any]) -> None:
    read = client.get_item(TableName=TABLES["plain"], Key=item_key, ConsistentRead=True)["Item"]["n"]["N"]
    client.update_item(
        TableName=TABLES["plain"],
        Key=item_key,
        UpdateExpression="SET n = :new",
        ConditionExpression="n = :old",
        ExpressionAttributeValues={":old": {"N": read}, ":new": {"N": str(int(read) + 1)}},
    )


def _increment_encrypted(client: Any, item_key: dict[str, Any]) -> None:
    def increment(item: dict[str, Any]) -> None:
        item["n"] = {"N": str(int(item["n"]["N"]) + 1)}

    client.update_encrypted(TableName=TABLES["encrypted"], Key=item_key, change=increment)


def _acknowledged(increment: Any, client: Any, updates: int, keys: list[dict[str, Any]]) -> int:
    """Repeat until so many updates were acknowledged."""
    done = 0
    while done < updates:
        try:
            increment(client, keys[done % len(keys)])
        except ClientError as error:
            if error.response["Error"]["Code"] != CONFLICT:
                raise
        else:
            done += 1
    return done


def main() -> None:
    endpoint_url, updates = sys.argv[1], int(sys.argv[2])
    keys = keys_of(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    plain = session_without_profile("us-east-1").client("dynamodb", endpoint_url=endpoint_url)
    works = [(_increment_plain, plain), (_increment_encrypted, encrypting(None, endpoint_url))]
    for table, (increment, client) in zip(TABLES, works, strict=True):
        with ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(lambda _: _acknowledged(increment, client, updates, keys), range(2)))  # noqa: B023
        print(f"{table}={sum(counts)}", flush=True)


if __name__ == "__main__":
    main()
