"""Merkle trees of RFC 6962: roots, inclusion proofs and consistency proofs.

::

    tree = CompactRange()
    for line in lines:
        tree.append(leaf_hash(line))
    tree.root()                                   # 32 bytes, the same for everybody who has the lines
    verify_inclusion(leaf_hash(line), index=7, size=tree.size, proof=hashes, root=root)

A leaf is SHA-256 of a zero byte and the entry, a node SHA-256 of a one byte and its two children (section
2.1), so that no entry can pass for a node. A proof is a list of roots of ranges of leaves, and which
ranges these are depends on numbers alone (:func:`inclusion_ranges`, :func:`consistency_ranges`): they are
found by one pass over the leaves that keeps a few hashes (:func:`range_roots`).

Pure: hashes and numbers in, hashes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from phicrypt.errors import AuthenticationError, FormatError

HASH_LENGTH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
MAX_PROOF_HASHES: Final = 63
"""More would be a tree of more leaves than a 63 bit number counts."""
LEAF_PREFIX: Final = b"\x00"
_NODE_PREFIX: Final = b"\x01"


class ProofMismatchError(AuthenticationError):
    """A Merkle proof does not lead to the root that it should."""

    TEXT = (
        "the proof does not lead to the root of the checkpoint: the record, the proof or the checkpoint was "
        "changed, or they do not belong together"
    )


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf (RFC 6962, section 2.1)."""
    return sha256(LEAF_PREFIX + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two children."""
    return sha256(_NODE_PREFIX + left + right).digest()


class CompactRange:
    """A tree that grows, kept as the roots of its largest whole subtrees: as many as its size has one bits.

    ``CompactRange(size, hashes)`` goes on where another one of that size stood.

    Raises FormatError where the number of hashes does not fit the size.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._hashes = list(hashes)
        if size < 0 or len(self._hashes) != size.bit_count():
            raise FormatError("as many hashes as the size has one bits were expected", field="compact range")
        if any(len(one) != HASH_LENGTH_BYTES for one in self._hashes):
            raise FormatError("hashes of 32 bytes were expected", field="compact range")

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the whole subtrees, the largest and leftmost first."""
        return tuple(self._hashes)

    def copy(self) -> CompactRange:
        return CompactRange(self.size, self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """:meth:`append` for many."""
        hashes, size = self._hashes, self.size
        for leaf in leaves:
            bits = size
            while bits & 1:
                leaf = sha256(_NODE_PREFIX + hashes.pop() + leaf).digest()
                bits >>= 1
            hashes.append(leaf)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The root over all leaves so far; of an empty tree SHA-256 of nothing."""
        return _fold(self._hashes) if self._hashes else EMPTY_ROOT

    def root_of(self, begin: int, end: int) -> bytes:
        """The root over a range of leaves that consists of whole subtrees kept here. Raises FormatError."""
        position, found = 0, []
        for level in reversed(range(self.size.bit_length())):
            if self.size >> level & 1:
                if begin <= position and position + (1 << level) <= end:
                    found.append((position, level))
                position += 1 << level
        if sum(1 << level for _, level in found) != end - begin or not found:
            raise FormatError("the range is not one of whole subtrees", field="compact range")
        first = sum(1 for level in range(self.size.bit_length()) if self.size >> level & 1 and level > found[0][1])
        return _fold(self._hashes[first : first + len(found)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """One root over neighbouring subtrees, each at least twice as large as all behind it."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _split(size: int) -> int:
    """The largest power of two smaller than the size: where RFC 6962 divides a tree."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The ranges of leaves whose roots prove the leaf ``index`` in a tree of ``size`` leaves (section 2.1.1),
    from the leaf's neighbour upwards."""
    begin, end = 0, size
    ranges = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """The ranges of leaves whose roots prove that the tree of ``old_size`` leaves is the beginning of that of
    ``new_size`` (section 2.1.2). None where one of them is empty, or both are the same."""
    if not 0 < old_size < new_size:
        return []
    begin, end, is_whole = 0, new_size, True
    ranges = []
    while end != old_size:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin, is_whole = middle, False
    if not is_whole:
        ranges.append((begin, end))
    return ranges[::-1]


def range_roots(leaves: Iterable[bytes], ranges: Sequence[tuple[int, int]], *, first: int = 0) -> list[bytes]:
    """The roots over ranges of leaves, in the order of the ranges, by one pass over the leaves.

    Args:
        leaves: hashes of leaves.
        ranges: that do not overlap.
        first: the number of the first leaf of ``leaves``.

    Raises FormatError where the leaves end before the ranges do.
    """
    waiting = sorted((begin, end, number) for number, (begin, end) in enumerate(ranges))
    roots: list[bytes] = [b""] * len(ranges)
    source = iter(leaves)
    position = first
    for begin, end, number in waiting:
        part = CompactRange()
        for leaf in source:
            position += 1
            if position > begin:
                part.append(leaf)
            if position == end:
                break
        if part.size != end - begin:
            raise FormatError("there are fewer leaves than the proof needs", field="leaves")
        roots[number] = part.root()
    return roots


def verify_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofMismatchError unless the proof shows the leaf at ``index`` of the tree with this root."""
    ranges = inclusion_ranges(index, size) if 0 <= index < size else None
    if ranges is None or len(ranges) != len(proof):
        raise ProofMismatchError("inclusion proof")
    for (begin, _), sibling in zip(ranges, proof, strict=True):
        leaf = node_hash(sibling, leaf) if begin <= index else node_hash(leaf, sibling)
    if leaf != root:
        raise ProofMismatchError("inclusion proof")


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise ProofMismatchError unless the proof shows that the old tree is the beginning of the new one."""
    ranges = consistency_ranges(old_size, new_size)
    if not 0 <= old_size <= new_size or len(ranges) != len(proof):
        raise ProofMismatchError("consistency proof")
    if not ranges:
        is_same = old_root == EMPTY_ROOT if old_size == 0 else old_root == new_root
        if not is_same or (new_size == 0 and new_root != EMPTY_ROOT):
            raise ProofMismatchError("consistency proof")
        return
    hashes = list(proof)
    if ranges[0][0] == old_size:
        # The old tree is itself the left subtree that the proof begins with; it is not sent.
        ranges, hashes = [(0, old_size), *ranges], [old_root, *hashes]
    old = new = hashes[0]
    for (begin, _), sibling in zip(ranges[1:], hashes[1:], strict=True):
        if begin < old_size:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root or new != new_root:
        raise ProofMismatchError("consistency proof")
