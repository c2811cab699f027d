"""For users' tests: keyrings with fixed keys, an audit sink that records, an embedded local AWS, a strict KMS.

Nothing here is for production: :class:`StaticKeyring` opens whatever it is given.

The local stack as a pytest fixture::

    @pytest.fixture(scope="session")
    def aws():
        with phicrypt.testing.local_aws() as stack:
            yield stack

    def test_round_trip(aws):
        phi = PhiCrypt(keyring=KmsKeyring(aws.kms_key_arn, client=aws.client("kms")))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.audit.sinks.memory import RecordingSink
    from phicrypt.core.aws_clients import mark_as_double
    from phicrypt.testing.doubles import StaticBranchKeyStore, StaticKeyring, local_aws
    from phicrypt.testing.local_stack import LocalAws
    from phicrypt.testing.strict_kms import StrictKms

_HOMES = {
    "LocalAws": "phicrypt.testing.local_stack",
    "RecordingSink": "phicrypt.audit.sinks.memory",
    "StaticBranchKeyStore": "phicrypt.testing.doubles",
    "StaticKeyring": "phicrypt.testing.doubles",
    "StrictKms": "phicrypt.testing.strict_kms",
    "local_aws": "phicrypt.testing.doubles",
    "mark_as_double": "phicrypt.core.aws_clients",
}

__all__ = [
    "LocalAws",
    "RecordingSink",
    "StaticBranchKeyStore",
    "StaticKeyring",
    "StrictKms",
    "local_aws",
    "mark_as_double",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
