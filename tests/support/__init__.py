"""Doubles and fixtures that several areas share. Take the first line that fits what a test is about.

Public doubles come first: what a user can take, these tests take too (``docs/testing.md``).

============================  ======================================================================
The test is about              Take
============================  ======================================================================
a format, a verb               ``RawAesKeyring``, or ``phicrypt.testing.StaticKeyring`` for vectors
items without a key store      ``phicrypt.testing.StaticBranchKeyStore``; ``dbesdk_support``
what KMS is asked, S3, tables  ``phicrypt.testing.local_aws`` (moto: no key states, no denials)
what KMS refuses, asymmetric   ``phicrypt.testing.StrictKms``: states, denials, faults, Regions
keys
what is recorded               ``phicrypt.testing.RecordingSink``; ``audit_events`` pairs its events
a step without I/O             ``step_answers``: no client at all
a client that is no client     ``phicrypt.testing.mark_as_double``
============================  ======================================================================

======================  ============================================================================
Module                  What it doubles or holds
======================  ============================================================================
``audit_events``        the events of uses, in pairs
``aws_library``         AWS's material providers library over the local stack: the other side
``beacon_vectors``      the official vectors' search configurations and items as phicrypt's own
``cloudtrail_records``  CloudTrail's records of what the strict KMS was asked
``dbesdk_support``      a client with a static branch key, items and tables of every type
``dynamodb_support``    servers that speak DynamoDB, a clinic's table and clients of it
``error_walks``         what stands in an exception and behind it: where a canary is
``forks``               work in a forked child
``interrupts``          an interrupt at every place where a module can be interrupted
``key_stores``          branch key stores: table of moto, keys of the strict KMS
``keyring_support``     materials for keyrings without a format; keyrings on the strict KMS
``keys_fakes``          a keyring that counts, waits and fails around a real one
``lost_updates``        a process that counts in a table with conditional writes
``manipulations``       what an attacker changes in a true log and trail, and what is due
``meddling``            a source that lets a second thread in while the first one waits
``messages``            short messages with a known key, and their frames taken apart
``module_path``         the modules that one call goes through, in order
``official_vectors``    where the official test vectors are
``other_manipulations`` further kinds of such changes, apart from the first list
``posture_accounts``    an AWS account as the doctor wants it, and answers put before single calls
``random_items``        random items: numbers in every form, empty names, sets, depth 32
``recipient_keys``      key pairs of recipients in the forms that people have them
``recovery_keys``       an RSA recovery key whose pair is made once for all tests
``s3_memory``           a process that measures its peak memory while it moves an object
``s3_process``          a process that uploads or downloads, to be killed
``s3_support``          an S3 client that counts, fails and changes what it returns
``searched_tables``     tables that are searched by beacons, their indexes and patients
``sdk_providers``       the AWS Encryption SDK's providers for the tests' keys
``slow_servers``        servers that are silent, or send a byte now and then
``step_answers``        answers for steps without I/O, in place of a client
``true_evidence``       a true audit log and a true CloudTrail with digests, made without a KMS
``wires``               the wire of a botocore client: what comes over it is real, changed or made up
``witness_server``      a witness of C2SP's protocol on loopback, with switches to misbehave
======================  ============================================================================

A double of an AWS service stands behind a real botocore client (a server on loopback, or botocore's own
events), never in its place: what phicrypt does to a client is part of what is tested.
"""
