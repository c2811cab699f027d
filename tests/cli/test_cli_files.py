"""phicrypt encrypt, decrypt and inspect on files and folders."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt
from phicrypt.cli import transfers
from phicrypt.core.output_file import offers_unnamed_files

CONTEXT = ("--context", "tenant=clinic-7")
EXPECT = ("--expect", "tenant=clinic-7")
SECRET = b"canary-diagnosis " * 5_000


@pytest.fixture(params=["unnamed file", "named file beside"])
def both_ways_of_writing(request, monkeypatch):
    """Linux's unnamed files, and what is done where they do not exist."""
    if request.param == "named file beside":
        monkeypatch.setattr("phicrypt.core.output_file.offers_unnamed_files", lambda: False)
    elif not offers_unnamed_files():
        pytest.skip("O_TMPFILE is Linux's")


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(SECRET)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("both_ways_of_writing")
class TestOneFile:
    def test_round_trip_under_default_names(self, phicrypt, record, tmp_path):
        assert phicrypt("encrypt", record, *CONTEXT).code == 0
        record.unlink()
        assert phicrypt("decrypt", f"{record}.esdk", *EXPECT).code == 0
        assert record.read_bytes() == SECRET
        assert names(tmp_path) == ["record.json", "record.json.esdk"]

    def test_the_library_opens_what_the_command_wrote(self, phicrypt, aws, record):
        assert phicrypt("encrypt", record, *CONTEXT, "--signed").code == 0
        client = PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")))
        message = Path(f"{record}.esdk").read_bytes()
        assert client.decrypt(message, context={"tenant": "clinic-7"}, require_signed=True) == SECRET

    def test_an_alias_is_resolved(self, phicrypt, aws, record, tmp_path):
        aws.client("kms").create_alias(AliasName=f"alias/{tmp_path.name}", TargetKeyId=aws.kms_key_arn)
        assert phicrypt("encrypt", record, *CONTEXT, key=f"alias/{tmp_path.name}").code == 0
        assert phicrypt("decrypt", f"{record}.esdk", "-", *EXPECT).code == 0

    def test_plaintext_is_private_and_ciphertext_follows_the_umask(self, phicrypt, record, tmp_path):
        before = os.umask(0o022)
        try:
            phicrypt("encrypt", record, *CONTEXT)
            phicrypt("decrypt", f"{record}.esdk", tmp_path / "opened", *EXPECT)
        finally:
            os.umask(before)
        assert stat.S_IMODE(Path(f"{record}.esdk").stat().st_mode) == 0o644
        assert stat.S_IMODE((tmp_path / "opened").stat().st_mode) == 0o600

    def test_existing_target_needs_force(self, phicrypt, record, aws):
        target = Path(f"{record}.esdk")
        target.write_bytes(b"mine")
        calls = len(aws.kms_requests)
        ending = phicrypt("encrypt", record, *CONTEXT)
        assert (ending.code, target.read_bytes(), len(aws.kms_requests)) == (9, b"mine", calls)
        assert "--force" in ending.error
        assert phicrypt("encrypt", record, *CONTEXT, "--force").code == 0
        assert phicrypt("decrypt", target, "-", *EXPECT).out == SECRET.decode()

    @pytest.mark.parametrize("force", [(), ("--force",)])
    def test_changed_file_leaves_nothing(self, phicrypt, record, tmp_path, force):
        phicrypt("encrypt", record, *CONTEXT)
        message = Path(f"{record}.esdk")
        changed = bytearray(message.read_bytes())
        changed[-1] ^= 1
        message.write_bytes(changed)
        record.unlink()
        ending = phicrypt("decrypt", message, *EXPECT, *force)
        assert ending.code == 4
        assert "authentication failed" in ending.error
        assert names(tmp_path) == ["record.json.esdk"]

    def test_failed_replacement_keeps_the_old_target(self, phicrypt, record, tmp_path):
        phicrypt("encrypt", record, *CONTEXT)
        message = Path(f"{record}.esdk")
        message.write_bytes(message.read_bytes()[:-1])
        assert phicrypt("decrypt", message, *EXPECT, "--force").code == 3
        assert record.read_bytes() == SECRET
        assert names(tmp_path) == ["record.json", "record.json.esdk"]

    def test_a_target_made_meanwhile_is_not_replaced(self, phicrypt, record, tmp_path, monkeypatch):
        real = PhiCrypt.encrypt_stream

        def slow(self, source, sink, **settings):
            Path(f"{record}.esdk").write_bytes(b"somebody else's")
            return real(self, source, sink, **settings)

        monkeypatch.setattr(PhiCrypt, "encrypt_stream", slow)
        assert phicrypt("encrypt", record, *CONTEXT).code == 9
        assert Path(f"{record}.esdk").read_bytes() == b"somebody else's"
        assert names(tmp_path) == ["record.json", "record.json.esdk"]

    def test_interrupt_leaves_nothing(self, phicrypt, record, tmp_path, monkeypatch):
        def interrupted(self, source, sink, **settings):
            sink.write(b"partial")
            raise KeyboardInterrupt

        monkeypatch.setattr(PhiCrypt, "encrypt_stream", interrupted)
        ending = phicrypt("encrypt", record, *CONTEXT)
        assert (ending.code, names(tmp_path)) == (130, ["record.json"])
        assert ending.error.strip() == "phicrypt: interrupted"

    def test_full_disk_leaves_nothing(self, phicrypt, record, tmp_path, monkeypatch):
        real = PhiCrypt.decrypt_stream

        class Full:
            def __init__(self, sink):
                self.sink = sink

            def write(self, data):
                self.sink.write(data[:100])
                raise OSError(28, "No space left on device")

        phicrypt("encrypt", record, *CONTEXT)
        monkeypatch.setattr(PhiCrypt, "decrypt_stream", lambda s, a, b, **k: real(s, a, Full(b), **k))
        ending = phicrypt("decrypt", f"{record}.esdk", tmp_path / "opened", *EXPECT)
        assert ending.code == 9
        assert ending.error == f"phicrypt: No space left on device: {tmp_path / 'opened'}\n"
        assert names(tmp_path) == ["record.json", "record.json.esdk"]

    def test_into_an_existing_folder_under_its_own_name(self, phicrypt, record, tmp_path):
        (tmp_path / "out").mkdir()
        assert phicrypt("encrypt", record, tmp_path / "out", *CONTEXT).code == 0
        assert names(tmp_path / "out") == ["record.json.esdk"]

    def test_a_link_or_device_is_never_replaced(self, phicrypt, record, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(tmp_path / "pipe")
        for name in ("link", "pipe"):
            ending = phicrypt("encrypt", record, tmp_path / name, *CONTEXT, "--force")
            assert ending.code == 9
            assert "not a regular file" in ending.error
        assert (tmp_path / "link").is_symlink()


class TestBadInput:
    def test_missing_file(self, phicrypt, tmp_path):
        ending = phicrypt("encrypt", tmp_path / "absent", *CONTEXT)
        assert (ending.code, ending.error) == (9, f"phicrypt: No such file or directory: {tmp_path / 'absent'}\n")

    def test_empty_file_encrypts_but_is_no_message(self, phicrypt, tmp_path):
        (tmp_path / "empty").touch()
        assert phicrypt("encrypt", tmp_path / "empty", *CONTEXT).code == 0
        assert phicrypt("decrypt", tmp_path / "empty", tmp_path / "out", *EXPECT).code == 3
        assert phicrypt("decrypt", tmp_path / "empty.esdk", tmp_path / "out", *EXPECT).code == 0
        assert (tmp_path / "out").read_bytes() == b""

    def test_directory_without_target(self, phicrypt, tmp_path):
        for command, options in (("encrypt", CONTEXT), ("decrypt", EXPECT)):
            ending = phicrypt(command, tmp_path, *options)
            assert (ending.code, names(tmp_path)) == (2, [])

    @pytest.mark.parametrize("change", [lambda m: m[:-7], lambda m: m[:30], lambda m: m + b"\0"])
    def test_truncated_and_extended(self, phicrypt, record, tmp_path, change):
        phicrypt("encrypt", record, *CONTEXT)
        (tmp_path / "bad").write_bytes(change(Path(f"{record}.esdk").read_bytes()))
        ending = phicrypt("decrypt", tmp_path / "bad", tmp_path / "out", *EXPECT)
        assert (ending.code, len(ending.error.splitlines())) == (3, 1)
        assert not (tmp_path / "out").exists()

    def test_message_for_another_key(self, phicrypt, aws, record, tmp_path):
        phicrypt("encrypt", record, *CONTEXT, key=aws.create_kms_key())
        ending = phicrypt("decrypt", f"{record}.esdk", tmp_path / "out", *EXPECT)
        assert (ending.code, len(ending.error.splitlines())) == (6, 1)
        assert not (tmp_path / "out").exists()

    def test_unreachable_endpoint(self, phicrypt, record, tmp_path, monkeypatch):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        ending = phicrypt("encrypt", record, *CONTEXT, "--endpoint-url", "http://127.0.0.1:9")
        assert (ending.code, names(tmp_path)) == (6, ["record.json"])

    def test_plain_http_elsewhere_is_refused(self, phicrypt, record, tmp_path):
        ending = phicrypt("encrypt", record, *CONTEXT, "--endpoint-url", "http://kms.example.com")
        assert (ending.code, names(tmp_path)) == (2, ["record.json"])

    def test_rule_08_decrypt_without_expectation_is_refused(self, phicrypt, record):
        phicrypt("encrypt", record, *CONTEXT)
        assert phicrypt("decrypt", f"{record}.esdk", "-").code == 2
        assert phicrypt("decrypt", f"{record}.esdk", "-", *EXPECT, "--any-context").code == 2
        assert phicrypt("decrypt", f"{record}.esdk", "-", "--any-context").out == SECRET.decode()

    def test_rule_08_other_context_is_refused_without_its_values(self, phicrypt, aws, record, tmp_path):
        phicrypt("encrypt", record, *CONTEXT)
        calls = len(aws.kms_requests)
        ending = phicrypt("decrypt", f"{record}.esdk", tmp_path / "out", "--expect", "tenant=canary-8")
        assert (ending.code, len(aws.kms_requests)) == (5, calls)
        assert "canary-8" not in ending.error
        assert "clinic-7" not in ending.error

    def test_context_that_looks_like_phi_is_refused_without_its_value(self, phicrypt, record):
        ending = phicrypt("encrypt", record, "--context", "patient=078-05-1120")
        assert ending.code == 5
        assert "078" not in ending.error

    @pytest.mark.parametrize("pair", ["tenant", "=clinic", "aws-crypto-x=1", "phicrypt-x=1"])
    def test_bad_pairs(self, phicrypt, record, pair):
        assert phicrypt("encrypt", record, "--context", pair).code == 2

    def test_repeated_names(self, phicrypt, record):
        assert phicrypt("encrypt", record, *CONTEXT, *CONTEXT).code == 2

    def test_rule_07_unsigned_is_refused_where_signed_is_required(self, phicrypt, record, tmp_path):
        phicrypt("encrypt", record, *CONTEXT)
        ending = phicrypt("decrypt", f"{record}.esdk", tmp_path / "out", *EXPECT, "--require-signed")
        assert ending.code == 10
        assert not (tmp_path / "out").exists()

    def test_unknown_profile(self, phicrypt, record):
        assert phicrypt("encrypt", record, *CONTEXT, "--profile", "absent").code == 2


class TestFolders:
    @pytest.fixture
    def tree(self, tmp_path):
        (tmp_path / "in" / "deep" / "er").mkdir(parents=True)
        (tmp_path / "in" / "a.txt").write_bytes(b"a")
        (tmp_path / "in" / "deep" / "er" / "b.txt").write_bytes(b"bb" * 100_000)
        return tmp_path / "in"

    def test_round_trip(self, phicrypt, tree, tmp_path):
        assert phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT).code == 0
        assert names(tmp_path / "sealed" / "deep" / "er") == ["b.txt.esdk"]
        assert phicrypt("decrypt", tmp_path / "sealed", tmp_path / "out", *EXPECT).code == 0
        assert (tmp_path / "out" / "a.txt").read_bytes() == b"a"
        assert (tmp_path / "out" / "deep" / "er" / "b.txt").read_bytes() == b"bb" * 100_000

    def test_links_are_never_followed(self, phicrypt, tree, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret.txt").write_bytes(b"secret")
        (tree / "file-link").symlink_to(outside / "secret.txt")
        (tree / "folder-link").symlink_to(outside)
        os.mkfifo(tree / "pipe")
        ending = phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        assert ending.code == 0
        assert "3 left out" in ending.error
        assert names(tmp_path / "sealed") == ["a.txt.esdk", "deep"]

    def test_a_link_in_the_target_is_never_written_through(self, phicrypt, tree, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "sealed").mkdir()
        (tmp_path / "sealed" / "deep").symlink_to(tmp_path / "elsewhere")
        assert phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT).code == 9
        assert names(tmp_path / "elsewhere") == []
        assert (tmp_path / "sealed" / "a.txt.esdk").exists()

    def test_a_target_that_is_a_folder_stops_only_its_own_file(self, phicrypt, tree, tmp_path):
        phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        (tmp_path / "out" / "a.txt").mkdir(parents=True)
        assert phicrypt("decrypt", tmp_path / "sealed", tmp_path / "out", *EXPECT, "--force").code == 9
        assert (tmp_path / "out" / "deep" / "er" / "b.txt").exists()

    def test_one_bad_file_is_named_and_the_rest_goes_on(self, phicrypt, tree, tmp_path):
        phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        (tmp_path / "sealed" / "a.txt.esdk").write_bytes(b"not a message")
        ending = phicrypt("decrypt", tmp_path / "sealed", tmp_path / "out", *EXPECT)
        assert ending.code == 3
        assert str(tmp_path / "sealed" / "a.txt.esdk") in ending.error
        assert names(tmp_path / "out") == ["deep"]
        assert (tmp_path / "out" / "deep" / "er" / "b.txt").exists()

    @pytest.mark.parametrize("length", [251, 255])
    def test_a_name_without_room_for_the_suffix_is_named_and_the_rest_goes_on(
        self, phicrypt, tree, tmp_path, length
    ):
        (tree / ("a" * length)).write_bytes(b"x")
        (tree / ("b" * 250)).write_bytes(b"x")
        ending = phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        assert ending.code == 9
        assert f"in {tree / ('a' * length)}:" in ending.error
        assert "too long" in ending.error
        assert names(tmp_path / "sealed") == ["a.txt.esdk", "b" * 250 + ".esdk", "deep"]
        assert (tmp_path / "sealed" / "deep" / "er" / "b.txt.esdk").exists()

    def test_a_file_that_became_a_link_meanwhile_is_named_and_the_rest_goes_on(
        self, phicrypt, tree, tmp_path, monkeypatch
    ):
        found = transfers.source_files

        def source_files(*arguments, **options):
            for file in found(*arguments, **options):
                if file.name == "a.txt":
                    (tree / "a.txt").unlink()
                    (tree / "a.txt").symlink_to("/etc/hostname")
                yield file

        monkeypatch.setattr(transfers, "source_files", source_files)
        ending = phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        assert ending.code == 9
        assert f"in {tree / 'a.txt'}:" in ending.error
        assert names(tmp_path / "sealed") == ["deep"]

    def test_a_refused_key_ends_the_command_at_the_first_file(self, phicrypt, aws, tree, tmp_path):
        phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        ending = phicrypt("decrypt", tmp_path / "sealed", tmp_path / "out", *EXPECT, key=aws.create_kms_key())
        assert (ending.code, len(ending.error.splitlines())) == (6, 1)

    @pytest.mark.parametrize("target", ["in/out", "in", "."])
    def test_folders_that_contain_one_another_are_refused(self, phicrypt, tree, tmp_path, target):
        assert phicrypt("encrypt", tree, tmp_path / target, *CONTEXT).code == 2
        assert names(tree) == ["a.txt", "deep"]

    def test_names_without_the_suffix_are_left_out_of_decryption_and_said_so(self, phicrypt, tree, tmp_path):
        ending = phicrypt("decrypt", tree, tmp_path / "out", *EXPECT)
        assert ending.code == 0
        assert "2 left out" in ending.error

    @pytest.mark.parametrize("name", [".esdk", "..esdk", "...esdk"])
    def test_names_that_would_lead_out_of_the_target_are_left_out(self, phicrypt, tmp_path, name):
        (tmp_path / "sealed").mkdir()
        (tmp_path / "sealed" / name).write_bytes(b"x")
        ending = phicrypt("decrypt", tmp_path / "sealed", tmp_path / "out", *EXPECT)
        assert (ending.code, names(tmp_path)) == (0, ["sealed"])
        assert "1 left out" in ending.error

    def test_a_line_break_in_a_name_forges_no_line(self, phicrypt, tmp_path):
        (tmp_path / "sealed").mkdir()
        (tmp_path / "sealed" / "a\nphicrypt: all good\x1b[2J.esdk").write_bytes(b"x")
        ending = phicrypt("decrypt", tmp_path / "sealed", tmp_path / "out", *EXPECT)
        assert ending.code == 3
        assert "phicrypt: all good" not in [line.strip() for line in ending.error.splitlines()]
        assert "\x1b" not in ending.error

    def test_one_data_key_serves_the_folder(self, phicrypt, aws, tree, tmp_path):
        calls = len(aws.kms_requests)
        phicrypt("encrypt", tree, tmp_path / "sealed", *CONTEXT)
        assert len(aws.kms_requests) == calls + 1


class TestInspect:
    def test_json_of_a_file(self, phicrypt, aws, record):
        phicrypt("encrypt", record, *CONTEXT)
        calls = len(aws.kms_requests)
        ending = phicrypt("inspect", f"{record}.esdk", "--json")
        summary = json.loads(ending.out)
        assert (summary["suite_id"], summary["context_names"]) == ("0x0478", ["tenant"])
        assert (summary["plaintext_length_bytes"], summary["key_arns"]) == (len(SECRET), [aws.kms_key_arn])
        assert len(aws.kms_requests) == calls
        assert "clinic-7" not in ending.out

    def test_table_of_a_file(self, phicrypt, aws, record):
        phicrypt("encrypt", record, *CONTEXT)
        ending = phicrypt("inspect", f"{record}.esdk")
        assert ending.code == 0
        assert aws.kms_key_arn in ending.out

    def test_folder_with_a_bad_file(self, phicrypt, record, tmp_path):
        phicrypt("encrypt", record, *CONTEXT)
        (tmp_path / "bad.esdk").write_bytes(b"\x02")
        ending = phicrypt("inspect", tmp_path, "--json")
        assert [Path(one["file"]).name for one in json.loads(ending.out)] == ["record.json.esdk"]
        assert ending.code == 3
        assert "bad.esdk" in ending.error

    def test_control_characters_of_a_message_do_not_reach_the_terminal(self, phicrypt, aws, tmp_path):
        client = PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")))
        (tmp_path / "m").write_bytes(client.encrypt(b"", context={"\x1b[2Jname": "x"}))
        assert client.decrypt((tmp_path / "m").read_bytes(), context=ANY_CONTEXT) == b""
        assert "\x1b" not in phicrypt("inspect", tmp_path / "m").out

    def test_a_plain_file_is_no_message(self, phicrypt, record):
        assert phicrypt("inspect", record).code == 3


class TestAudit:
    def events(self, path):
        return [json.loads(line)["event"] for line in path.read_text().splitlines()]

    def test_uses_are_recorded_with_actor_and_purpose(self, phicrypt, record, tmp_path):
        who = ("--audit-log", tmp_path / "log", "--actor", "dr-4711", "--purpose", "treatment")
        assert phicrypt("encrypt", record, *CONTEXT, *who).code == 0
        assert phicrypt("decrypt", f"{record}.esdk", "-", *EXPECT, *who).out == SECRET.decode()
        uses = [one for one in self.events(tmp_path / "log") if "actor" in one]
        assert {(one["actor"], one["purpose"]) for one in uses} == {("dr-4711", "treatment")}
        assert {one["operation"] for one in uses} == {"encrypt_stream", "decrypt_stream"}
        assert "canary" not in (tmp_path / "log").read_text()

    def test_rule_20_what_cannot_be_recorded_is_not_done(self, phicrypt, record, tmp_path):
        phicrypt("encrypt", record, *CONTEXT)
        ending = phicrypt("decrypt", f"{record}.esdk", tmp_path / "out", *EXPECT, "--audit-log", "/dev/full")
        assert (ending.code, len(ending.error.splitlines())) == (8, 1)
        assert not (tmp_path / "out").exists()

    def test_an_actor_needs_a_log_and_a_purpose_an_actor(self, phicrypt, record, tmp_path):
        assert phicrypt("encrypt", record, *CONTEXT, "--actor", "dr-4711").code == 2
        options = ("--audit-log", tmp_path / "log", "--purpose", "treatment")
        assert phicrypt("encrypt", record, *CONTEXT, *options).code == 2
