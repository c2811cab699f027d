"""RFC 6962 trees: known roots, and proofs that hold for what they are about and for nothing else."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.errors import AuthenticationError, FormatError
from phicrypt.formats.merkle import (
    EMPTY_ROOT,
    CompactRange,
    ProofMismatchError,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    range_roots,
    verify_consistency,
    verify_inclusion,
)

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "60"))
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
KNOWN_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Roots of the first 0 to 8 of ENTRIES: the reference tests of Certificate Transparency (RFC 6962)."""


def tree_of(leaves):
    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def root_by_definition(leaves):
    """Section 2.1 word for word."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256().digest()
    middle = max(2**power for power in range(len(leaves).bit_length()) if 2**power < len(leaves))
    return node_hash(root_by_definition(leaves[:middle]), root_by_definition(leaves[middle:]))


@pytest.mark.parametrize("size", range(9))
def test_roots_of_the_reference_tests(size):
    assert tree_of([leaf_hash(entry) for entry in ENTRIES[:size]]).root().hex() == KNOWN_ROOTS[size]


def test_proofs_of_the_rfc_s_example():
    """RFC 6962, section 2.1.3: seven leaves, by the letters of its drawing."""
    a, b, c, d, e, f, j = (leaf_hash(bytes([number])) for number in range(7))
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, m = node_hash(g, h), node_hash(i, j)
    leaves = [a, b, c, d, e, f, j]
    assert range_roots(leaves, inclusion_ranges(0, 7)) == [b, h, m]
    assert range_roots(leaves, inclusion_ranges(3, 7)) == [c, g, m]
    assert range_roots(leaves, inclusion_ranges(4, 7)) == [f, j, k]
    assert range_roots(leaves, inclusion_ranges(6, 7)) == [i, k]
    assert range_roots(leaves, consistency_ranges(3, 7)) == [c, d, g, m]
    assert range_roots(leaves, consistency_ranges(4, 7)) == [m]
    assert range_roots(leaves, consistency_ranges(6, 7)) == [i, j, k]


def test_every_proof_of_every_small_tree_verifies():
    leaves = [leaf_hash(bytes([number])) for number in range(34)]
    roots = [root_by_definition(leaves[:size]) for size in range(35)]
    for size in range(35):
        assert tree_of(leaves[:size]).root() == roots[size]
        for index in range(size):
            proof = range_roots(leaves, inclusion_ranges(index, size))
            verify_inclusion(leaves[index], index=index, size=size, proof=proof, root=roots[size])
        for old in range(size + 1):
            proof = range_roots(leaves, consistency_ranges(old, size))
            verify_consistency(old_size=old, old_root=roots[old], new_size=size, new_root=roots[size], proof=proof)


def test_growth_is_proven_from_the_kept_hashes_and_the_new_leaves_alone():
    leaves = [leaf_hash(bytes([number])) for number in range(34)]
    for size in range(2, 35):
        for old_size in range(1, size):
            old, ranges = tree_of(leaves[:old_size]), consistency_ranges(old_size, size)
            added = [one for one in ranges if one[1] > old_size]
            new_roots = dict(zip(added, range_roots(leaves[old_size:], added, first=old_size), strict=True))
            found = [new_roots[one] if one in new_roots else old.root_of(*one) for one in ranges]
            assert found == range_roots(leaves, ranges)


@st.composite
def trees(draw):
    size = draw(st.integers(1, 70))
    return [leaf_hash(bytes([number])) for number in range(size)], draw(st.integers(0, size - 1))


def changed(data, hashes):
    """The list with a bit turned, a hash left out, one more, or two in another order."""
    hashes = list(hashes)
    kind = data.draw(st.sampled_from(["bit", "cut", "grown", "swapped"]))
    at = data.draw(st.integers(0, max(0, len(hashes) - 1)))
    if kind == "bit" and hashes:
        turned = bytearray(hashes[at])
        turned[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
        hashes[at] = bytes(turned)
    elif kind == "cut" and hashes:
        del hashes[at]
    elif kind == "swapped" and len(hashes) > 1:
        hashes[0], hashes[-1] = hashes[-1], hashes[0]
    else:
        hashes.insert(at, bytes(32))
    return hashes


@settings(max_examples=CASES, deadline=None)
@given(trees(), st.data())
def test_an_inclusion_proof_holds_for_its_leaf_its_place_and_its_root_alone(tree, data):
    leaves, index = tree
    size, root = len(leaves), root_by_definition(leaves)
    proof = range_roots(leaves, inclusion_ranges(index, size))
    with pytest.raises(ProofMismatchError):
        verify_inclusion(leaves[index], index=index, size=size, proof=changed(data, proof), root=root)
    with pytest.raises(ProofMismatchError):
        verify_inclusion(leaf_hash(b"other"), index=index, size=size, proof=proof, root=root)
    with pytest.raises(ProofMismatchError):
        verify_inclusion(leaves[index], index=index, size=size, proof=proof, root=leaf_hash(b"other"))
    other = data.draw(st.integers(-1, size + 1).filter(lambda number: number != index))
    with pytest.raises(ProofMismatchError):
        verify_inclusion(leaves[index], index=other, size=size, proof=proof, root=root)


@settings(max_examples=CASES, deadline=None)
@given(trees(), st.data())
def test_a_consistency_proof_holds_for_the_tree_that_grew_alone(tree, data):
    leaves, index = tree
    old_size, new_size = index + 1, len(leaves)
    old_root, new_root = root_by_definition(leaves[:old_size]), root_by_definition(leaves)
    proof = range_roots(leaves, consistency_ranges(old_size, new_size))

    def verify(**different):
        given_ones = {"old_size": old_size, "new_size": new_size, "old_root": old_root, "new_root": new_root}
        verify_consistency(**{**given_ones, "proof": proof, **different})

    verify()
    tampered = list(leaves)
    tampered[data.draw(st.integers(0, index))] = leaf_hash(b"changed")
    for different in (
        {"proof": changed(data, proof)},
        {"old_root": root_by_definition(tampered[:old_size])},
        {"new_root": root_by_definition(tampered)},
        {"old_size": new_size + 1},
        {"old_size": -1},
    ):
        with pytest.raises(AuthenticationError):
            verify(**different)


def test_an_empty_tree_grows_into_any_and_is_no_other():
    leaves = [leaf_hash(b"a")]
    right = {"old_size": 0, "old_root": EMPTY_ROOT, "new_size": 1, "new_root": leaves[0], "proof": []}
    verify_consistency(**right)
    for wrong in ({"old_root": bytes(32)}, {"proof": [bytes(32)]}, {"new_size": 0}):
        with pytest.raises(ProofMismatchError):
            verify_consistency(
                **{
                    "old_size": 0,
                    "old_root": EMPTY_ROOT,
                    "new_size": 1,
                    "new_root": leaves[0],
                    "proof": [],
                    **wrong,
                }
            )


def test_a_range_goes_on_from_its_kept_hashes():
    leaves = [leaf_hash(bytes([number])) for number in range(21)]
    for size in range(21):
        kept = tree_of(leaves[:size])
        went_on = CompactRange(kept.size, kept.hashes)
        for leaf in leaves[size:]:
            went_on.append(leaf)
        assert went_on.root() == root_by_definition(leaves)
        assert len(kept.hashes) == size.bit_count()


@pytest.mark.parametrize(("size", "hashes"), [(1, []), (2, [bytes(32)] * 2), (3, [bytes(32), b""]), (-1, [])])
def test_kept_hashes_that_do_not_fit_the_size_are_refused(size, hashes):
    with pytest.raises(FormatError):
        CompactRange(size, hashes)


def test_ranges_that_are_not_kept_are_refused():
    tree = tree_of([leaf_hash(bytes([number])) for number in range(6)])
    assert tree.root_of(0, 6) == tree.root()
    for begin, end in ((0, 3), (2, 4), (4, 5), (0, 7), (6, 8), (3, 3)):
        with pytest.raises(FormatError):
            tree.root_of(begin, end)


def test_too_few_leaves_are_no_proof():
    with pytest.raises(FormatError):
        range_roots([leaf_hash(b"")] * 3, inclusion_ranges(0, 5))


def test_the_state_of_a_large_tree_is_a_few_hashes():
    tree = CompactRange()
    leaf = leaf_hash(b"")
    for _ in range(10_000):
        tree.append(leaf)
    assert len(tree.hashes) <= 14
    assert len(inclusion_ranges(99_999, 100_000)) <= 17
