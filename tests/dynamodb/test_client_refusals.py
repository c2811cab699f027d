"""What the client refuses before the network: its endpoint does not exist, so a sent call fails otherwise."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config
from support.dynamodb_support import key, patient, patient_config

from phicrypt import PhiCrypt
from phicrypt.dynamodb.layer import check_body
from phicrypt.dynamodb.tables import TableBook
from phicrypt.errors import ConfigurationError, PhiCryptError, UnsupportedOperationError

TABLE = "patients"
ARN = f"arn:aws:dynamodb:us-east-1:111122223333:table/{TABLE}"
VALUES = {":v": {"S": "x"}}


@pytest.fixture(scope="module")
def client(phi: PhiCrypt) -> Any:
    return phi.dynamodb.client(
        [patient_config(TABLE)],
        plaintext_tables=["settings"],
        check_tables="never",
        session=boto3.Session("AKIAIOSFODNN7EXAMPLE", "no-secret", region_name="us-east-1"),
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1),
    )


def refused(client: Any, operation: str, **parameters: Any) -> str:
    with pytest.raises(PhiCryptError) as caught:
        getattr(client, operation)(**parameters)
    assert isinstance(caught.value, ConfigurationError | UnsupportedOperationError)
    return str(caught.value)


@pytest.mark.parametrize("table_name", [TABLE, ARN])
@pytest.mark.parametrize("member", ["ConditionExpression", "FilterExpression", "KeyConditionExpression"])
def test_a_condition_on_an_encrypted_attribute_is_an_error_that_names_it(
    client: Any, member: str, table_name: str
) -> None:
    operation = "put_item" if member == "ConditionExpression" else "query"
    more = {"Item": patient()} if operation == "put_item" else {}
    for expression, names in (("#n = :v", {"#n": "name"}), ("begins_with(conditions[0], :v)", None)):
        arguments = {member: expression, "ExpressionAttributeValues": VALUES}
        if names:
            arguments["ExpressionAttributeNames"] = names
        text = refused(client, operation, TableName=table_name, **more, **arguments)
        assert "'name'" in text or "'conditions'" in text


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("delete_item", {"Key": key()}),
        ("update_item", {"Key": key(), "UpdateExpression": "SET note = :v"}),
        ("put_item", {"Item": patient()}),
    ],
)
def test_conditions_of_every_write_are_checked(client: Any, operation: str, more: dict[str, Any]) -> None:
    text = refused(
        client,
        operation,
        TableName=TABLE,
        ConditionExpression="attribute_exists(conditions)",
        ExpressionAttributeValues=VALUES,
        **more,
    )
    assert "'conditions'" in text


@pytest.mark.parametrize(
    "entry",
    [
        {"Put": {"Item": patient()}},
        {"Delete": {"Key": key()}},
        {"ConditionCheck": {"Key": key()}},
        {"Update": {"Key": key(), "UpdateExpression": "REMOVE note"}},
    ],
)
def test_conditions_inside_transactions_are_checked(client: Any, entry: dict[str, Any]) -> None:
    ((action, body),) = entry.items()
    body = body | {"TableName": TABLE, "ConditionExpression": "attribute_exists(conditions)"}
    assert "'conditions'" in refused(client, "transact_write_items", TransactItems=[{action: body}])


def test_an_attribute_without_action_is_refused_in_conditions(client: Any) -> None:
    text = refused(
        client,
        "scan",
        TableName=TABLE,
        FilterExpression="forgotten = :v",
        ExpressionAttributeValues=VALUES,
    )
    assert "'forgotten'" in text


@pytest.mark.parametrize(
    ("expression", "attribute"),
    [
        ("SET clinic = :v", "clinic"),
        ("SET #n = :v", "name"),
        ("SET conditions[0] = :v", "conditions"),
        ("REMOVE aws_dbe_foot", "aws_dbe_foot"),
        ("SET note = :v, aws_dbe_head = :v", "aws_dbe_head"),
        ("ADD visit :v", "visit"),
        ("DELETE unheard_of :v", "unheard_of"),
        ("SET note = #n", "name"),
        ("SET note = if_not_exists(clinic, :v)", "clinic"),
    ],
)
def test_rule_18_updates_of_signed_attributes_are_refused_with_the_remedy(
    client: Any, expression: str, attribute: str
) -> None:
    arguments: dict[str, Any] = {"UpdateExpression": expression}
    if "#n" in expression:
        arguments["ExpressionAttributeNames"] = {"#n": "name"}
    if ":v" in expression:
        arguments["ExpressionAttributeValues"] = VALUES
    text = refused(client, "update_item", TableName=TABLE, Key=key(), **arguments)
    assert repr(attribute) in text and "update_encrypted" in text
    entry = {"Update": {"TableName": TABLE, "Key": key(), **arguments}}
    assert "update_encrypted" in refused(client, "transact_write_items", TransactItems=[entry])


@pytest.mark.parametrize("projection", ["clinic", "patient_id, visit, clinic", "note", "conditions[0]"])
def test_projections_that_drop_signed_attributes_are_refused(client: Any, projection: str) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_item", {"TableName": TABLE, "Key": key(), "ProjectionExpression": projection}),
        ("scan", {"TableName": TABLE, "ProjectionExpression": projection}),
        ("batch_get_item", {"RequestItems": {TABLE: {"Keys": [key()], "ProjectionExpression": projection}}}),
        (
            "transact_get_items",
            {"TransactItems": [{"Get": {"TableName": TABLE, "Key": key(), "ProjectionExpression": projection}}]},
        ),
    ]
    for operation, parameters in calls:
        assert "ProjectionExpression" in refused(client, operation, **parameters)


def test_a_projection_of_an_encrypted_attribute_names_it(client: Any) -> None:
    text = refused(
        client,
        "get_item",
        TableName=TABLE,
        Key=key(),
        ProjectionExpression="#n",
        ExpressionAttributeNames={"#n": "name"},
    )
    assert "'name'" in text


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("execute_statement", {"Statement": f"SELECT * FROM {TABLE}"}),
        ("batch_execute_statement", {"Statements": [{"Statement": f"SELECT * FROM {TABLE}"}]}),
        ("execute_transaction", {"TransactStatements": [{"Statement": f"DELETE FROM {TABLE}"}]}),
    ],
)
def test_partiql_is_refused(client: Any, operation: str, parameters: dict[str, Any]) -> None:
    assert "PartiQL" in refused(client, operation, **parameters)


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("put_item", {"TableName": "other", "Item": patient()}),
        ("get_item", {"TableName": "other", "Key": key()}),
        ("scan", {"TableName": ARN.replace(TABLE, "other")}),
        ("batch_write_item", {"RequestItems": {"other": [{"PutRequest": {"Item": patient()}}]}}),
        ("batch_get_item", {"RequestItems": {"other": {"Keys": [key()]}}}),
        ("transact_write_items", {"TransactItems": [{"Put": {"TableName": "other", "Item": patient()}}]}),
        ("transact_get_items", {"TransactItems": [{"Get": {"TableName": "other", "Key": key()}}]}),
        ("update_item", {"TableName": "other", "Key": key(), "UpdateExpression": "REMOVE note"}),
        ("delete_item", {"TableName": "other", "Key": key()}),
    ],
)
def test_tables_that_are_not_configured_are_refused(
    client: Any, operation: str, parameters: dict[str, Any]
) -> None:
    assert "'other'" in refused(client, operation, **parameters)


@pytest.mark.parametrize("mixed_with", ["settings", TABLE])
def test_one_unknown_table_refuses_the_whole_batch(client: Any, mixed_with: str) -> None:
    request = {mixed_with: {"Keys": [key()]}, "other": {"Keys": [key()]}}
    assert "'other'" in refused(client, "batch_get_item", RequestItems=request)


def test_a_table_named_twice_in_a_batch_is_refused(client: Any) -> None:
    keys = {"Keys": [key()]}
    assert "twice" in refused(client, "batch_get_item", RequestItems={TABLE: keys, ARN: keys})
    writes = [{"PutRequest": {"Item": patient()}}]
    assert "twice" in refused(client, "batch_write_item", RequestItems={TABLE: writes, ARN: writes})


@pytest.mark.parametrize("method", ["get_item", "put_item", "query", "describe_table"])
def test_presigned_urls_are_refused(client: Any, method: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="presigned"):
        client.generate_presigned_url(method, Params={"TableName": TABLE})


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("put_item", {"Item": patient(), "Expected": {"name": {"Exists": False}}}),
        ("put_item", {"Item": patient(), "ConditionalOperator": "AND"}),
        ("get_item", {"Key": key(), "AttributesToGet": ["name"]}),
        ("update_item", {"Key": key(), "AttributeUpdates": {"note": {"Value": {"S": "x"}}}}),
        ("query", {"KeyConditions": {"patient_id": {"ComparisonOperator": "EQ"}}}),
        ("query", {"QueryFilter": {"name": {"ComparisonOperator": "NULL"}}}),
        ("scan", {"ScanFilter": {"name": {"ComparisonOperator": "NULL"}}}),
        ("delete_item", {"Key": key(), "Expected": {"name": {"Exists": False}}}),
    ],
)
def test_rule_17_legacy_parameters_are_refused(client: Any, operation: str, parameters: dict[str, Any]) -> None:
    assert "is refused for encrypted tables" in refused(client, operation, TableName=TABLE, **parameters)


@pytest.mark.parametrize("name", ["name", "clinic", "passport"])
def test_a_key_with_other_attributes_is_refused(client: Any, name: str) -> None:
    for operation in ("get_item", "delete_item"):
        assert repr(name) in refused(client, operation, TableName=TABLE, Key=key() | {name: {"S": "Ada Canary"}})


def test_values_that_no_expression_uses_are_refused(client: Any) -> None:
    text = refused(
        client,
        "query",
        TableName=TABLE,
        KeyConditionExpression="patient_id = :v",
        ExpressionAttributeValues=VALUES | {":name": {"S": "Ada Canary"}},
    )
    assert "':name'" in text and "Ada" not in text


def test_items_with_unknown_or_reserved_attributes_are_refused(client: Any) -> None:
    assert "'ssn'" in refused(client, "put_item", TableName=TABLE, Item=patient(ssn={"S": "1"}))
    assert "encrypted" in refused(client, "put_item", TableName=TABLE, Item=patient(aws_dbe_head={"B": b"x"}))


def test_an_index_that_starts_at_an_encrypted_attribute_is_refused(client: Any) -> None:
    start = key() | {"name": {"S": "Ada Canary"}}
    text = refused(client, "scan", TableName=TABLE, IndexName="i", ExclusiveStartKey=start)
    assert "'name'" in text and "Ada" not in text


def test_hydrate_needs_an_index(client: Any) -> None:
    assert "IndexName" in refused(client, "scan", TableName=TABLE, hydrate=True)
    assert "hydrate" in refused(client, "scan", TableName="settings", hydrate=True)


def test_settings_on_encrypted_attributes_are_refused(client: Any) -> None:
    index = {
        "IndexName": "by-name",
        "KeySchema": [{"AttributeName": "name", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    definitions = [{"AttributeName": "name", "AttributeType": "S"}]
    updates = [{"Create": index}]
    text = refused(
        client,
        "update_table",
        TableName=TABLE,
        AttributeDefinitions=definitions,
        GlobalSecondaryIndexUpdates=updates,
    )
    assert "'name'" in text
    schema = [{"AttributeName": "patient_id", "KeyType": "HASH"}, {"AttributeName": "visit", "KeyType": "RANGE"}]
    text = refused(
        client,
        "create_table",
        TableName=TABLE,
        AttributeDefinitions=definitions,
        KeySchema=schema,
        GlobalSecondaryIndexes=[index],
    )
    assert "'name'" in text
    expiry = {"Enabled": True, "AttributeName": "name"}
    text = refused(client, "update_time_to_live", TableName=TABLE, TimeToLiveSpecification=expiry)
    assert "'name'" in text
    text = refused(client, "create_table", TableName=TABLE, AttributeDefinitions=definitions, KeySchema=schema[:1])
    assert "'visit'" in text


def test_malformed_parameters_are_refused_even_without_botocores_validation(phi: PhiCrypt) -> None:
    client = phi.dynamodb.client(
        [patient_config(TABLE)],
        check_tables="never",
        session=boto3.Session("AKIAIOSFODNN7EXAMPLE", "no-secret", region_name="us-east-1"),
        endpoint_url="http://127.0.0.1:9",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )
    refused(client, "put_item", Item=patient())
    refused(client, "put_item", TableName=TABLE, Item=[patient()])
    refused(client, "batch_write_item", RequestItems={TABLE: {"PutRequest": {"Item": patient()}}})
    refused(client, "batch_write_item", RequestItems={TABLE: [{"PutRequest": {"Item": patient()}, "Extra": 1}]})
    refused(client, "transact_write_items", TransactItems=[{"Put": {"Item": patient()}}])
    refused(client, "transact_write_items", TransactItems=[{}])
    refused(client, "put_item", TableName=TABLE, Item=patient(), Surprise="x")


BOOK = TableBook([patient_config(TABLE)], ["settings"])


@pytest.mark.parametrize("table_name", [TABLE, ARN])
@pytest.mark.parametrize("held", ["", '"aws_dbe_head": {"B": "AQ=="}', '"aws_dbe_foot": {"B": "AQ=="}'])
def test_rule_17_the_last_check_stops_puts_without_header_and_footer(table_name: str, held: str) -> None:
    put = f'{{"TableName": "{table_name}", "Item": {{{held}}}}}'
    bodies = {
        "PutItem": put,
        "BatchWriteItem": f'{{"RequestItems": {{"{table_name}": [{{"PutRequest": {{"Item": {{{held}}}}}}}]}}}}',
        "TransactWriteItems": f'{{"TransactItems": [{{"Put": {put}}}]}}',
    }
    for operation, body in bodies.items():
        with pytest.raises(UnsupportedOperationError, match="aws_dbe_head"):
            check_body(operation, body.encode(), BOOK)


@pytest.mark.parametrize("operation", ["PutItem", "BatchWriteItem", "TransactWriteItems", "UpdateItem"])
@pytest.mark.parametrize(
    "body", [None, b"", b"\x1f\x8b", b"[]", b"{}", b'{"TableName": 1}', b'{"RequestItems": []}']
)
def test_rule_17_a_body_that_cannot_be_read_is_stopped(operation: str, body: bytes | None) -> None:
    with pytest.raises(PhiCryptError):
        check_body(operation, body, BOOK)


def test_rule_17_updates_without_the_footers_condition_are_stopped() -> None:
    body = f'{{"TableName": "{TABLE}", "UpdateExpression": "SET note = :n"}}'
    with pytest.raises(UnsupportedOperationError):
        check_body("UpdateItem", body.encode(), BOOK)


def test_rule_17_a_handler_that_puts_plaintext_back_is_stopped(phi: PhiCrypt) -> None:
    client = phi.dynamodb.client(
        [patient_config(TABLE)],
        check_tables="never",
        session=boto3.Session("AKIAIOSFODNN7EXAMPLE", "no-secret", region_name="us-east-1"),
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def put_plaintext_back(params: dict[str, Any], **_: Any) -> None:
        params["Item"] = patient()

    client.meta.events.register("before-parameter-build", put_plaintext_back)
    with pytest.raises(UnsupportedOperationError, match="stopped before it was sent"):
        client.put_item(TableName=TABLE, Item=patient())


def test_books_refuse_names_that_stand_twice() -> None:
    with pytest.raises(ConfigurationError):
        TableBook([patient_config(TABLE), patient_config(TABLE)])
    with pytest.raises(ConfigurationError):
        TableBook([patient_config(TABLE), patient_config("restored", logical_table_name=TABLE)])
    with pytest.raises(ConfigurationError):
        TableBook([patient_config(TABLE)], [TABLE])
    with pytest.raises(ConfigurationError):
        TableBook([], "settings")
    with pytest.raises(ConfigurationError):
        TableBook(["patients"])  # type: ignore[list-item]
