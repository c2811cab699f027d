"""Signed notes, checkpoints, proofs and what witnesses are sent: C2SP's examples, and all that is refused."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError, PhiCryptError
from phicrypt.formats.checkpoints import (
    Checkpoint,
    InclusionProof,
    NoteSignatureError,
    check_signature,
    made_signature,
    open_checkpoint,
    read_known_size,
    signed_message,
    write_add_checkpoint,
)
from phicrypt.formats.merkle import CompactRange, inclusion_ranges, leaf_hash, range_roots, verify_consistency
from phicrypt.formats.notes import (
    ED25519,
    ED25519_COSIGNATURE,
    MAX_SIGNATURES,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    VerifierKey,
    decode_base64,
    parse_note,
    parse_signature_lines,
    with_signatures,
)

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "100"))
# https://c2sp.org/signed-note, "Example"
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ER"
    "YNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
# The tests of litewitness (filippo.io/torchwood, cmd/litewitness/testdata/litewitness.txt)
WITNESSED_LOG = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
WITNESSED_KEY = f"{WITNESSED_LOG}+5202289b+Af/cLU2Y5BJNP+r3iMDC+av9eWCD0fBJVDfzAux5zxAP"
WITNESSED = {
    1: (
        "KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=",
    ),
    3: (
        "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=",
        "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=",
    ),
}
WITNESSED_PROOF = (
    "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
)
ORIGIN = "clinic.example/audit/portal"
TREE = CompactRange()
LEAVES = [leaf_hash(bytes([number])) for number in range(11)]
for _leaf in LEAVES:
    TREE.append(_leaf)
HEAD = Checkpoint(ORIGIN, TREE.size, TREE.root())


def ed25519_key(name, signature_type=ED25519, seed=1):
    private_key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private_key, VerifierKey.from_der(name, signature_type, der)


def ml_dsa_key(name):
    mldsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    private_key = mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private_key, VerifierKey.from_der(name, ML_DSA_44_COSIGNATURE, der)


def signed(head, *pairs, timestamp_seconds=1_700_000_000):
    text = head.text()
    lines = [
        made_signature(key, private_key.sign(signed_message(key, text, timestamp_seconds)), timestamp_seconds)
        for private_key, key in pairs
    ]
    return Note(text, tuple(lines)).to_bytes()


LOG, WITNESS = ed25519_key(ORIGIN), ed25519_key("witness.example/w1", ED25519_COSIGNATURE, 2)


PROOF = InclusionProof(4, tuple(range_roots(LEAVES, inclusion_ranges(4, 11))), signed(HEAD, LOG, WITNESS))


def test_the_example_of_signed_notes_verifies():
    key, note = VerifierKey.parse(C2SP_KEY), parse_note(C2SP_NOTE)
    assert note.text == "This is an example message.\n"
    assert check_signature(key, note.text, note.signatures[0]) == 0
    assert note.to_bytes() == C2SP_NOTE
    assert str(key) == C2SP_KEY
    with pytest.raises(NoteSignatureError):
        check_signature(key, "This is another message.\n", note.signatures[0])


@pytest.mark.parametrize("size", WITNESSED)
def test_the_checkpoints_of_a_witness_s_own_tests_verify(size):
    root, signature = WITNESSED[size]
    content = f"{WITNESSED_LOG}\n{size}\n{root}\n\n— {WITNESSED_LOG} {signature}\n".encode()
    opened = open_checkpoint(content, log_keys=[VerifierKey.parse(WITNESSED_KEY)])
    assert opened.checkpoint == Checkpoint(WITNESSED_LOG, size, decode_base64(root, "root"))
    broken = content.replace(f"\n{size}\n".encode(), b"\n9\n")
    with pytest.raises(NoteSignatureError):
        open_checkpoint(broken, log_keys=[VerifierKey.parse(WITNESSED_KEY)])


def test_the_consistency_proof_of_a_witness_s_own_tests_verifies():
    roots = {size: decode_base64(root, "root") for size, (root, _) in WITNESSED.items()}
    proof = [decode_base64(line, "proof") for line in WITNESSED_PROOF]
    verify_consistency(old_size=1, old_root=roots[1], new_size=3, new_root=roots[3], proof=proof)
    body = write_add_checkpoint(1, proof, b"NOTE")
    assert body.decode().split("\n") == ["old 1", *WITNESSED_PROOF, "", "NOTE"]


def test_the_messages_of_cosignatures_are_those_of_the_specification():
    """https://c2sp.org/tlog-cosignature: its example of the Ed25519 message, and the structure for ML-DSA."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert signed_message(WITNESS[1], text, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + text.encode()
    ml_dsa = VerifierKey("witness.example/w1", ML_DSA_44_COSIGNATURE, bytes(1_312))
    assert signed_message(ml_dsa, text, 1679315147) == bytes.fromhex(
        "737562747265652f76310a00"  # label
        "127769746e6573732e6578616d706c652f7731"  # name
        "00000000641850cb"  # time
        "1b6578616d706c652e636f6d2f626568696e642d7468652d736f6661"  # origin
        "0000000000000000"
        "00000000013e2dc3"
        "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
    )


@pytest.mark.parametrize("log", [LOG, "ml-dsa"], ids=["ed25519", "ml-dsa"])
def test_a_checkpoint_opens_under_the_log_s_key_and_names_its_witnesses(log):
    log = ml_dsa_key(ORIGIN) if log == "ml-dsa" else log
    content = signed(HEAD, log, WITNESS)
    opened = open_checkpoint(content, log_keys=[log[1]], witness_keys=[WITNESS[1]])
    assert opened.checkpoint == HEAD
    assert opened.cosigned == (("witness.example/w1", 1_700_000_000),)
    assert open_checkpoint(content, log_keys=[log[1]]).cosigned == ()
    with pytest.raises(NoteSignatureError):
        open_checkpoint(content, log_keys=[ed25519_key(ORIGIN, seed=7)[1]])
    with pytest.raises(NoteSignatureError):
        open_checkpoint(signed(HEAD, WITNESS), log_keys=[log[1]], witness_keys=[WITNESS[1]])


def test_a_log_s_key_speaks_for_its_own_origin_only():
    with pytest.raises(NoteSignatureError):
        open_checkpoint(signed(HEAD._replace(origin="other.example"), LOG), log_keys=[LOG[1]])


def test_signatures_of_unknown_keys_under_a_known_name_are_passed_over():
    """After a change of keys both sign for a while; C2SP tells keys apart by name and id together."""
    former = ed25519_key(ORIGIN, seed=7)
    content = signed(HEAD, former, LOG, WITNESS, ed25519_key("witness.example/w1", ED25519_COSIGNATURE, 8))
    opened = open_checkpoint(content, log_keys=[LOG[1]], witness_keys=[WITNESS[1]])
    assert opened.checkpoint == HEAD
    assert open_checkpoint(content, log_keys=[former[1], LOG[1]]).checkpoint == HEAD


def test_a_known_witness_whose_signature_does_not_fit_refuses_the_checkpoint():
    note = parse_note(signed(HEAD, LOG, WITNESS))
    for signature in (note.signatures[1].signature[:-1], bytes(72), b"\xff" * 72, b"x"):
        lines = (note.signatures[0], note.signatures[1]._replace(signature=signature))
        content = Note(note.text, lines).to_bytes()
        with pytest.raises(NoteSignatureError):
            open_checkpoint(content, log_keys=[LOG[1]], witness_keys=[WITNESS[1]])
        assert open_checkpoint(content, log_keys=[LOG[1]]).cosigned == ()


def test_a_cosignature_s_time_is_signed_along():
    note = parse_note(signed(HEAD, LOG, WITNESS))
    line = note.signatures[1]
    later = line._replace(signature=(1_800_000_000).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(NoteSignatureError):
        check_signature(WITNESS[1], note.text, later)


def test_a_proof_file_holds_index_hashes_and_the_checkpoint_verbatim():
    content = signed(HEAD, LOG)
    for index in range(TREE.size):
        hashes = tuple(range_roots(LEAVES, inclusion_ranges(index, TREE.size)))
        proof = InclusionProof(index, hashes, content)
        assert InclusionProof.parse(proof.to_bytes()) == proof
        proof.check(LEAVES[index], HEAD)
        lines = proof.to_bytes().decode().split("\n")
        assert lines[:2] == ["c2sp.org/tlog-proof@v1", f"index {index}"]
        with_extra = "\n".join([lines[0], "extra AAAA", *lines[1:]]).encode()
        assert InclusionProof.parse(with_extra) == proof._replace(extra=bytes(3))
        assert proof._replace(extra=bytes(3)).to_bytes() == with_extra


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"c2sp.org/tlog-proof@v1\nindex 0",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nnote",
        b"c2sp.org/tlog-proof@v1\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex 01\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex -1\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex 9223372036854775808\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex ٣\n\nnote".encode(),
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"A" * 43 + b"=\n" * 64 + b"\nnote",
        b"c2sp.org/tlog-proof@v1\nextra AA==\n\nnote",
    ],
)
def test_what_is_no_proof_is_a_format_error(content):
    with pytest.raises(FormatError):
        InclusionProof.parse(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a\n1\nAAAA\n",
        f"\n1\n{'A' * 43}=\n",
        f"a\n01\n{'A' * 43}=\n",
        f"a\n1\n{'A' * 43}=",
        f"a\n1\n{'A' * 42}B=\n",
        f"a\n1\n{'A' * 43}=\n\nb\n",
    ],
)
def test_what_is_no_checkpoint_is_a_format_error(text):
    with pytest.raises(FormatError):
        Checkpoint.parse(text)


def test_extension_lines_are_passed_over_and_signed():
    text = HEAD.text() + "extension\n"
    assert Checkpoint.parse(text) == HEAD
    assert signed_message(LOG[1], text, 0) == text.encode()
    assert signed_message(WITNESS[1], text, 5).endswith(b"extension\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno signature\n",
        "text\n\n— name\n".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name AAAAAAAA".encode(),
        "text\n\n— na+me AAAAAAA=\n".encode(),
        "text\n\n— na\u2003me AAAAAAA=\n".encode(),
        "text\n\n— name AAAAAAB=\n".encode(),
        "te\txt\n\n— name AAAAAAA=\n".encode(),
        "te\rxt\n\n— name AAAAAAA=\n".encode(),
        b"\xed\xa0\x80\n\n\xe2\x80\x94 name AAAAAAA=\n",
        "\n\n— name AAAAAAA=\n".encode(),
    ],
)
def test_what_is_no_note_is_a_format_error(content):
    with pytest.raises(FormatError):
        parse_note(content)


def test_notes_are_bounded():
    line = NoteSignature("name", b"1234", b"5")
    with pytest.raises(LimitExceededError):
        parse_note(Note("text\n", (line,) * (MAX_SIGNATURES + 1)).to_bytes())
    assert len(parse_note(Note("text\n", (line,) * 16).to_bytes()).signatures) == 16
    with pytest.raises(LimitExceededError):
        parse_signature_lines(b"x" * 300_000)


def test_a_text_may_hold_empty_lines():
    assert parse_note("one\n\ntwo\n\n— name AAAAAAA=\n".encode()).text == "one\n\ntwo\n"


def test_a_newer_signature_of_the_same_key_replaces_the_older():
    note = Note("text\n", (NoteSignature("a", b"1234", b"5"), NoteSignature("b", b"1234", b"5")))
    merged = with_signatures(note, [NoteSignature("a", b"1234", b"6"), NoteSignature("a", b"9999", b"5")])
    assert [(one.name, one.signature) for one in merged.signatures] == [("b", b"5"), ("a", b"6"), ("a", b"5")]


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000+",
        C2SP_KEY.replace("530d903a", "530d903b"),
        C2SP_KEY.replace("example.com/foo", "example.com/bar"),
        C2SP_KEY[:-4],
        "name+00000000+AsEBAQEB",
        f"na me+{'0' * 8}+{C2SP_KEY.rpartition('+')[2]}",
    ],
)
def test_what_is_no_verifier_key_is_refused(vkey):
    with pytest.raises(ConfigurationError):
        VerifierKey.parse(vkey)


def test_a_witness_s_answer_to_a_wrong_size_is_a_number():
    assert read_known_size(b"20852014\n") == 20852014
    for wrong in (b"", b"-1\n", b"1 2\n", b"1\n\n", b"\xff\n"):
        with pytest.raises(FormatError):
            read_known_size(wrong)


@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_damaged_proofs_and_notes_are_refused_and_nothing_else_is_raised(data):
    content = bytearray(PROOF.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            content[at : data.draw(st.integers(at, len(content)))] = data.draw(st.binary(max_size=8))
    try:
        found = InclusionProof.parse(bytes(content))
        opened = open_checkpoint(found.checkpoint, log_keys=[LOG[1]], witness_keys=[WITNESS[1]])
        found.check(LEAVES[4], opened.checkpoint)
    except PhiCryptError:
        return
    assert (found.leaf_index, found.hashes, opened.checkpoint) == (4, PROOF.hashes, HEAD)


def test_a_cryptography_without_an_algorithm_says_so(monkeypatch):
    def refuse(der):
        raise FormatError("a DER public key was expected", field="public key")

    monkeypatch.setattr("phicrypt.formats.notes.SignaturePublicKey", refuse)
    with pytest.raises(ConfigurationError, match=r"witness\.example/w1"):
        open_checkpoint(signed(HEAD, LOG, WITNESS), log_keys=[], witness_keys=[WITNESS[1]])
