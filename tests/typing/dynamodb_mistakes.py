"""Slips around items, encrypting clients and typed tables that a type checker must find; never run.

Each line that ends in ``# error`` holds one mistake, and the lines without it none.
"""

from __future__ import annotations

import boto3
from mypy_boto3_dynamodb import DynamoDBClient, DynamoDBServiceResource
from mypy_boto3_dynamodb.type_defs import GetItemOutputTypeDef, QueryOutputTypeDef

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.dynamodb import Action, Encrypted, PartitionKey, PhiModel, SortKey, TableConfig, TypedTable, Unsigned


class Visit(PhiModel, table="visits"):
    patient_id: PartitionKey[str]
    number: SortKey[int]
    name: Encrypted[str]
    note: Unsigned[str] = ""


def rename(visit: Visit) -> None:
    visit.name = "Ada"


phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)))
table = TableConfig("visits", "patient_id", actions={"patient_id": Action.SIGN_ONLY})
TableConfig("visits", "patient_id", action={})  # error
TableConfig("visits", "patient_id", actions={"patient_id": "SIGN_ONLY"})  # error

# Items
phi.dynamodb.encrypt_item({"patient_id": {"S": "p-1"}}, table)
phi.dynamodb.encrypt_item({"patient_id": {"S": "p-1"}}, "visits")  # error
phi.dynamodb.decrypt_item({"patient_id": "p-1"}, table, shape="pyton")  # error
phi.dynamodb.decrypt({"patient_id": "p-1"}, table)  # error

# Clients and resources
client = phi.dynamodb.client([table], region_name="us-east-1", check_tables="never")
as_boto3s: DynamoDBClient = client
read: GetItemOutputTypeDef = client.get_item(TableName="visits", Key={"patient_id": {"S": "p-1"}})
found: QueryOutputTypeDef = client.query(TableName="visits", IndexName="by-clinic", hydrate=True)
phi.dynamodb.client([table], check_tables="nevr")  # error
phi.dynamodb.client([table], plaintext_table=["others"])  # error
phi.dynamodb.client([table], regoin_name="us-east-1")  # error
phi.dynamodb.client(["visits"])  # error
client.put_itm(TableName="visits", Item={})  # error
client.put_item(TableNam="visits", Item={})  # error
client.query(TableName="visits", hydrat=True)  # error
client.update_encrypted(TableName="visits", key={}, change=lambda item: item)  # error
client.update_encrypted(TableName="visits", Key={}, change="name")  # error
resource: DynamoDBServiceResource = phi.dynamodb.resource([table], endpoint_url="http://localhost:8000")
phi.dynamodb.resource([table], endpont_url="http://localhost:8000")  # error
phi.dynamodb.resource([table]).Table("visits").update_encrypted(Key={"patient_id": "p-1"}, change=dict)
phi.dynamodb.resource([table]).Table("visits").put_itm(Item={})  # error
phi.dynamodb.resource([table]).Tabel("visits")  # error
phi.dynamodb.session([table], profil_name="clinic")  # error
attached: DynamoDBClient = phi.dynamodb.attach(boto3.client("dynamodb"), [table])
phi.dynamodb.attach(boto3.client("dynamodb"), [table], chek_tables="never")  # error

# Typed tables
visits = phi.dynamodb.table(Visit, session=boto3.Session(), endpoint_url="http://localhost:8000")
same: TypedTable[Visit] = visits
phi.dynamodb.table(Visit, regoin_name="us-east-1")  # error
phi.dynamodb.table(Visit, tabel_name="visits-restored")  # error
phi.dynamodb.table(dict)  # error
visits.put(Visit(patient_id="p-1", number=1, name="Ada"), only_if_new=True)
visits.put({"patient_id": "p-1"})  # error
visits.put(Visit(patient_id="p-1", number=1, name="Ada"), only_if_nwe=True)  # error
one = visits.get("p-1", 1)
one.name  # error
visits.get("p-1", 1, consistnt=True)  # error
visits.gett("p-1", 1)  # error
visits.query("p-1", newest_frist=True)  # error
visits.query("p-1", sort_begins_with=1)  # error
visits.update("p-1", 1, rename)
visits.update("p-1", 1, "name")  # error
visits.update("p-1")  # error
visits.set_unsigned("p-1", 1, note="called")
visits.delete()  # error
