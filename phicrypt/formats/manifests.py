"""Manifests: many resources, named in order, under one detached signature.

A manifest is a JSON document that lists resources in order, each as an in-toto ResourceDescriptor; its
own detached signature (:mod:`phicrypt.formats.signatures`) covers them all::

    {"resources": [{"name": …, "digest": {"sha256": hex}, "annotations": {"length": bytes}}, …]}

Pure: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.signatures import (
    Fingerprint,
    canonical_json,
    descriptor,
    json_object,
    read_descriptor,
    strict_json,
)

MAX_MANIFEST_LENGTH_BYTES: Final = 64 * 1024 * 1024
MAX_MANIFEST_ENTRIES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the resources differ from their manifest.

    Attributes:
        kind: ``"bytes"``, ``"length"``, ``"name"`` (same bytes under another name), ``"missing"``,
            ``"unexpected"`` or ``"order"``.
        name: the resource's name in the manifest (for ``"unexpected"``: as found).
        found_name: for ``"name"``, what it is called now; for ``"order"``, what stands in its place.
    """

    kind: str
    name: str
    found_name: str | None = None

    def __repr__(self) -> str:
        return f"<Difference {self.kind}>"


class ManifestMismatchError(AuthenticationError):
    """The manifest's signature is good, but the resources are not those it lists.

    Attributes:
        differences: what differs, in the manifest's order. They hold resource names: show them to
            whoever may see those.
    """

    def __init__(self, differences: Sequence[Difference]) -> None:
        super().__init__("manifest")
        self.differences = tuple(differences)


def write_manifest(entries: Sequence[Fingerprint]) -> bytes:
    """The manifest document. Raises ConfigurationError for no entries or a name twice,
    LimitExceededError beyond :data:`MAX_MANIFEST_ENTRIES`."""
    if not entries:
        raise ConfigurationError("a manifest lists at least one resource")
    if len(entries) > MAX_MANIFEST_ENTRIES:
        raise LimitExceededError("too many resources", limit=MAX_MANIFEST_ENTRIES, actual=len(entries))
    if len({entry.name for entry in entries}) != len(entries):
        raise ConfigurationError("a manifest lists each name once")
    lines = b",\n".join(canonical_json(descriptor(entry)) for entry in entries)
    return b'{"resources":[\n' + lines + b"\n]}\n"


def read_manifest(manifest: bytes) -> tuple[Fingerprint, ...]:
    """The entries in order. Call it after the signature verified. Raises FormatError."""
    if len(manifest) > MAX_MANIFEST_LENGTH_BYTES:
        raise LimitExceededError(
            "the manifest is too long in bytes", limit=MAX_MANIFEST_LENGTH_BYTES, actual=len(manifest)
        )
    resources = json_object(strict_json(manifest, "manifest"), "manifest").get("resources")
    if not isinstance(resources, list) or not 1 <= len(resources) <= MAX_MANIFEST_ENTRIES:
        raise FormatError(f"a list of 1 to {MAX_MANIFEST_ENTRIES} was expected", field="resources")
    entries = tuple(read_descriptor(entry, f"resources[{at}]") for at, entry in enumerate(resources))
    if len({entry.name for entry in entries}) != len(entries):
        raise FormatError("a name stands twice", field="resources")
    return entries


def compare_manifest(listed: Sequence[Fingerprint], found: Iterable[Fingerprint]) -> tuple[Difference, ...]:
    """What differs between a verified manifest and the resources as found, in their order."""
    found = tuple(found)
    by_name = {entry.name: entry for entry in found}
    names_listed = {entry.name for entry in listed}
    strays: dict[tuple[int, str, bytes], list[str]] = {}
    for entry in found:
        if entry.name not in names_listed:
            strays.setdefault(_content(entry), []).append(entry.name)
    differences = []
    for entry in listed:
        other = by_name.get(entry.name)
        if other is None:
            twins = strays.get(_content(entry))
            differences.append(
                Difference("name", entry.name, twins.pop(0)) if twins else Difference("missing", entry.name)
            )
        elif other.length_bytes != entry.length_bytes:
            differences.append(Difference("length", entry.name))
        elif _content(other) != _content(entry):
            differences.append(Difference("bytes", entry.name))
    differences += [Difference("unexpected", name) for names in strays.values() for name in names]
    return (*differences, *_order(listed, found))


def _order(listed: Sequence[Fingerprint], found: Sequence[Fingerprint]) -> Iterator[Difference]:
    """The first place where the order differs, among the names on both sides; names found twice."""
    names_listed = {entry.name for entry in listed}
    seen: set[str] = set()
    names_found = []
    for entry in found:
        if entry.name in seen:
            yield Difference("unexpected", entry.name)
        elif entry.name in names_listed:
            names_found.append(entry.name)
        seen.add(entry.name)
    expected = [entry.name for entry in listed if entry.name in seen]
    for expected_name, name in zip(expected, names_found, strict=True):
        if expected_name != name:
            yield Difference("order", expected_name, name)
            return


def _content(entry: Fingerprint) -> tuple[int, str, bytes]:
    return entry.length_bytes, entry.digest_name, entry.digest
