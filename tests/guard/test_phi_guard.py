"""The guard finds identifiers of people in pairs of name and value, and leaves opaque values alone."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from phicrypt.errors import ConfigurationError, PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard

LOOKS_LIKE_PHI = [
    # social security and taxpayer numbers
    ("subject", "123-45-6789"),
    ("subject", "patient-123-45-6789"),
    ("subject", "123 45 6789"),
    ("subject", "123_45_6789.pdf"),
    ("subject", "scans/123.45.6789/page"),
    ("subject", "912-70-1234"),
    ("subject", "SSN:123456789"),
    ("subject", "x?ssn=123456789"),
    ("ssn", "123456789"),
    ("patientSSN", "123456789"),
    ("social_security_number", "id 123456789"),
    ("subject", "\uff11\uff12\uff13-\uff14\uff15-\uff16\uff17\uff18\uff19"),
    ("subject", "123\u201345\u20136789"),
    ("subject", "12\u200b3-45-67\u200d89"),
    ("subject", "123%2D45%2D6789"),
    ("owner", "jane%2540clinic.org"),
    ("subject", "\u0661\u0662\u0663-\u0664\u0665-\u0666\u0667\u0668\u0669"),
    # telephones
    ("contact", "(617) 555-0123"),
    ("contact", "617-555-0123"),
    ("contact", "617.555.0123"),
    ("contact", "555-123-4567"),
    ("contact", "(555) 123-4567"),
    ("contact", "123.456.7890"),
    ("contact", "0044 20 7946 0958"),
    ("contact", "+1 617 555 0123"),
    ("contact", "1-617-555-0123"),
    ("contact", "+442079460958"),
    ("contact", "+49 30 901820 12"),
    ("phone", "6175550123"),
    ("homePhone", "555-0123"),
    ("fax", "00442079460958"),
    # e-mail
    ("owner", "jane.doe@clinic.org"),
    ("owner", "mailto:jane@clinic.co.uk"),
    ("owner", "jane%40clinic.org"),
    ("owner", "arn:aws:sts::111122223333:assumed-role/Nurse/jane@clinic.org"),
    ("owner", "j\u00fcrgen@klinik.de"),
    # dates of birth
    ("dob", "1987-03-12"),
    ("dob", "2019-03-12"),
    ("dob", "19870312"),
    ("dateOfBirth", "12.03.87"),
    ("date_of_birth", "2001-03-12T00:00:00Z"),
    ("birth-date", "12 March"),
    ("admission_date", "2024-01-15"),
    ("note", "03/12/1987"),
    ("note", "3-12-2004"),
    ("note", "31.12.1987"),
    ("note", "1954-03-12"),
    ("note", "12 Mar 1987"),
    ("note", "March 12, 1987"),
    ("note", "dob=20040312"),
    ("note", "born:2004-03-12"),
    ("note", "born on 2010-05-06"),
    ("note", "DOB: 5/6/10"),
    ("note", "dob=2010-5-6"),
    ("note", "12th March 1987"),
    # medical record and beneficiary numbers
    ("subject", "MRN 00123456"),
    ("subject", "mrn-123456"),
    ("subject", "MRN#4711999"),
    ("subject", "chart no 12345678"),
    ("subject", "medical_record_123456"),
    ("mrn", "A-12345"),
    ("medicalRecordNumber", "0012345"),
    ("subject", "1EG4-TE5-MK73"),
    ("subject", "1EG4TE5MK73"),
    # cards
    ("payment", "4111111111111111"),
    ("payment", "4111 1111 1111 1111"),
    ("payment", "5500-0000-0000-0004"),
    ("payment", "378282246310005"),
    ("payment", "6011111111111117"),
    ("payment", "6200000000000005"),
    ("payment", "4111.1111.1111.1111"),
    ("payment", "4111_1111_1111_1111"),
    ("card_number", "411111111111"),
    # IP addresses
    ("device", "203.0.113.17"),
    ("device", "host 10.0.0.12:443"),
    ("device", "2001:db8::8a2e:370:7334"),
    ("device", "fe80::1ff:fe23:4567:890a"),
    ("device", "2001:0db8:0000:0000:0000:8a2e:0370:7334"),
    # ZIP+4 and ZIP
    ("area", "02139-4307"),
    ("area", "MA 02139-4307"),
    ("zip", "02139"),
    ("postalCode", "K1A 0B1"),
    # VIN
    ("asset", "1HGCM82633A004352"),
    ("asset", "vehicle 1M8GDM9AXKP042788"),
    ("vin", "wvwzzz1jz3w386752"),
    # pairs whose name announces a person
    ("patient_name", "Doe"),
    ("last-name", "Doe"),
    ("address", "12 Main Street"),
]

LOOKS_OPAQUE = [
    ("tenant", "clinic-7"),
    ("tenant", "acme"),
    ("application", "portal"),
    ("application", "portal/2.11.0"),
    ("dataset", "radiology-2024"),
    ("resource-type", "DiagnosticReport"),
    ("resource", "DiagnosticReport/8f14e45f-ceea-467f-a0f5-1c7f4b6f2b11"),
    ("patient_id", "p-1001"),
    ("patient_id", "8f14e45f-ceea-467f-a0f5-1c7f4b6f2b11"),
    ("mrn", "8f14e45f-ceea-467f-a0f5-1c7f4b6f2b11"),
    ("ssn", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    ("id", "12345678-4111-1111-1111-111111111111"),
    ("id", "11111111-2222-3333-4444-123456789012"),
    ("id", "{8F14E45F-CEEA-467F-A0F5-1C7F4B6F2B11}"),
    ("id", "urn:uuid:00000000-0000-1000-8000-001122334455"),
    # ULIDs, KSUIDs, snowflakes, object ids
    ("id", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ("id", "01HQ3WJ8ZT0000000000000000"),
    ("id", "0ujtsYcgvSTl8PAuAdqWYSMnLOv"),
    ("id", "1541815603606036480"),
    ("id", "507f1f77bcf86cd799439011"),
    # ARNs
    ("kms", "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
    ("kms", "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"),
    ("kms", "arn:aws:kms:us-east-1:111122223333:alias/phi"),
    ("role", "arn:aws:iam::123456789012:role/Reader"),
    ("bucket", "arn:aws:s3:::clinic-phi-123456789012-us-east-1"),
    ("table", "arn:aws:dynamodb:eu-central-1:123456789012:table/patients/stream/2024-01-15T10:00:00.000"),
    # AWS resource ids
    ("instance", "i-0123456789abcdef0"),
    ("volume", "vol-0a1b2c3d4e5f67890"),
    ("subnet", "subnet-00112233445566778"),
    ("account", "123456789012"),
    # points in time
    ("time", "2024-01-15T10:00:00Z"),
    ("time", "1970-01-01T00:00:00Z"),
    ("time", "1999-12-31T23:59:59.999999+00:00"),
    ("time", "1999-12-31 23:59:59"),
    ("time", "20240115T100000Z"),
    ("time", "19991231T235959+0000"),
    ("time", "Tue, 15 Nov 1994 12:45:26 GMT"),
    ("time", "1705312800"),
    ("time", "1705312800123"),
    ("time", "1705312800123456"),
    ("time", "1705312800123456789"),
    ("day", "2024-01-15"),
    ("prefix", "logs/2024/01/15/10"),
    ("prefix", "year=2024/month=01/day=15"),
    ("year_of_birth", "1987"),
    # digests and encodings
    ("md5", "d41d8cd98f00b204e9800998ecf8427e"),
    ("sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ("sha256", "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
    ("digits", "123456789012345678901234567890123456"),
    ("etag", '"9b2cf535f27731c974343645a3985328-12"'),
    ("phicrypt-location", "4+y9SPU6SsbQ+1234567890aXkQ2Lm3gZ9mYb7cQF0="),
    ("aws-crypto-public-key", "A7cm55612345678901RKdO9Zl0iR0jXbZqH9xgLrLZlvYMN3dDqNjW8c4mAh3xT"),
    ("crc", "AAAAAA=="),
    # versions, numbers, names
    ("version", "1.2.3"),
    ("version", "2.16.840.1.113883.6.96"),
    ("dicom", "1.2.840.10008.5.1.4.1.1.2"),
    ("build", "20240115.3"),
    ("order", "19870312"),
    ("order", "4111111111111112"),
    ("order", "0000-1111-2222-3333"),
    ("sequence", "000000012345"),
    ("sequence", "0012 345"),
    ("sequence", "2024-100-200-3000"),
    ("oid", "1.2.840.113.619.5555"),
    ("order", "4111.1111.1111.1112"),
    ("dataset", "newborn-screening-2024"),
    ("note", "ssn"),
    ("range", "10000-20000"),
    ("code", "C++::namespace"),
    ("clock", "12:34:56"),
    ("object key", "ab/cd/abcd1234.bin"),
    ("object key", "part-00000-of-00010.snappy.parquet"),
    ("object key", "exports/run-2024-01-15T10-00-00Z/chunk-0007.json"),
    ("reason", "quarterly review"),
    ("size", "+12"),
    ("name", "bucket-a"),
    ("branch", "tenant-7"),
    ("empty", ""),
    ("unicode", "\u7814\u7a76\u6240-7"),
    ("address_token", "rt1-9f86d081884c7d65"),
]


def test_there_are_at_least_sixty_examples_of_each_kind() -> None:
    assert len(LOOKS_LIKE_PHI) >= 60
    assert len(LOOKS_OPAQUE) >= 60


@pytest.mark.parametrize(("name", "value"), LOOKS_LIKE_PHI)
def test_refuses_what_looks_like_phi(name: str, value: str) -> None:
    with pytest.raises(PhiInContextError) as caught:
        PhiGuard().check({"tenant": "clinic-7", name: value})
    assert caught.value.names == (name,)


@pytest.mark.parametrize(("name", "value"), LOOKS_OPAQUE)
def test_lets_opaque_values_pass(name: str, value: str) -> None:
    pairs = {name: value}
    assert PhiGuard().check(pairs) is pairs


@pytest.mark.parametrize(("name", "value"), LOOKS_LIKE_PHI)
def test_rule_32_errors_hold_nothing_of_the_value(name: str, value: str) -> None:
    with pytest.raises(PhiInContextError) as caught:
        PhiGuard().check({name: value}, where="tag")
    error = caught.value
    assert error.where == "tag"
    # The traceback's source lines are this file's; the value stands there as a variable only.
    assert value not in "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)


def test_a_refusal_is_repeated_each_time() -> None:
    guard = PhiGuard()
    for _ in range(3):
        with pytest.raises(PhiInContextError):
            guard.check({"subject": "123-45-6789"})


def test_a_name_that_looks_like_phi_is_refused_and_withheld() -> None:
    with pytest.raises(PhiInContextError) as caught:
        PhiGuard().check({"patient 123-45-6789": "x"})
    assert "123-45" not in str(caught.value)
    with pytest.raises(PhiInContextError):
        PhiGuard("hash", hash_key=bytes(32)).check({"patient 123-45-6789": "x"})


def test_hash_mode_replaces_only_offending_values_and_always_by_the_same() -> None:
    guard = PhiGuard("hash", hash_key=b"k" * 32)
    pairs = {"tenant": "clinic-7", "subject": "123-45-6789"}
    replaced = guard.check(pairs)
    assert replaced["tenant"] == "clinic-7"
    assert replaced["subject"].startswith("guard-")
    assert PhiGuard("hash", hash_key=b"k" * 32).check(pairs) == replaced
    assert PhiGuard("hash", hash_key=b"j" * 32).check(pairs) != replaced
    assert guard.check({"other": "123-45-6789"})["other"] != replaced["subject"]
    assert guard.check(replaced) is replaced
    assert pairs["subject"] == "123-45-6789"


def test_off_mode_lets_everything_pass() -> None:
    pairs = {"ssn": "123-45-6789"}
    assert PhiGuard("off").check(pairs) is pairs


def test_allowed_names_are_not_checked_but_others_are() -> None:
    guard = PhiGuard(allow_names=("host",))
    guard.check({"host": "203.0.113.17"})
    with pytest.raises(PhiInContextError):
        guard.check({"host": "203.0.113.17", "peer": "203.0.113.17"})


def test_extra_patterns_and_own_record_numbers() -> None:
    guard = PhiGuard(extra_patterns={"badge": r"badge-\d+"}, mrn_patterns=(r"\bH\d{6}\b",))
    for value in ("badge-12", "H123456"):
        with pytest.raises(PhiInContextError):
            guard.check({"subject": value})
    guard.check({"subject": "MRN-8891235"})


def test_wrong_settings_are_refused() -> None:
    for make in (
        lambda: PhiGuard("loud"),  # type: ignore[arg-type]
        lambda: PhiGuard("hash"),
        lambda: PhiGuard("hash", hash_key=b"short"),
        lambda: PhiGuard("refuse", hash_key=bytes(32)),
        lambda: PhiGuard(extra_patterns={"bad": "("}),
        lambda: PhiGuard(allow_names="host"),
    ):
        with pytest.raises(ConfigurationError):
            make()


def test_values_that_are_no_text_are_refused() -> None:
    for value in (b"123-45-6789", 7, None):
        with pytest.raises(ConfigurationError):
            PhiGuard().check({"subject": value})  # type: ignore[dict-item]


def test_guard_shows_no_key_and_cannot_be_copied() -> None:
    guard = PhiGuard("hash", hash_key=b"secret-secret-secret-secret-secret")
    assert "secret" not in repr(guard)
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copier(guard)


def test_passed_pairs_are_remembered_within_a_bound() -> None:
    guard = PhiGuard()
    for number in range(20_000):
        guard.check({"n": f"item-{number}"})
    guard.check({"long": "x" * 60_000})
    assert len(guard._passed) <= 4_096
    assert all(len(name) + len(value) <= 256 for name, value in guard._passed)


@pytest.mark.parametrize(
    "value",
    [
        *(unit * 20_000 for unit in ("%40", "@", "a@", "mar", "dob", "1-", "1:", "1.", "9", "\u0663-", "1 2")),
        "%" + "25" * 30_000 + "40",
        *(start + "-" * 60_000 for start in ("+1", "mrn", "4", "dob")),
    ],
)
def test_long_hostile_values_are_searched_to_the_end(value: str) -> None:
    # A search that is quadratic in 60,000 characters does not come back within minutes.
    guard = PhiGuard("hash", hash_key=bytes(32))
    for name in ("subject", "dob", "phone"):
        assert guard.check({name: value}).keys() == {name}
