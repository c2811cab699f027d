"""The program as a process: pipes, signals, full disks, terminals, missing packages."""

from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phicrypt import KmsKeyring, PhiCrypt

ROOT = Path(__file__).parents[2]
SECRET = b"canary-diagnosis " * 200_000
CONTEXT = ("--context", "tenant=clinic-7")
EXPECT = ("--expect", "tenant=clinic-7")


def heed_signals():
    """A shell that runs tests in the background lets them, and so their children, ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def start(environment, aws, tmp_path):
    """Start the program as a process; it is ended with the test."""
    started = []

    def begin(name, *arguments, **settings):
        options = ("--key", aws.kms_key_arn, "--endpoint-url", aws.endpoint_url)
        settings = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "preexec_fn": heed_signals,
            **settings,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "phicrypt", name, *options, *map(str, arguments)], cwd=ROOT, **settings
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with process:  # waits, and closes its pipes
            process.kill()


@pytest.fixture
def message(aws):
    client = PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")))
    return client.encrypt(SECRET, context={"tenant": "clinic-7"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestPipes:
    def test_round_trip(self, start):
        sealed, _ = start("encrypt", "-", *CONTEXT, stdin=subprocess.PIPE).communicate(SECRET)
        opened, _ = start("decrypt", "-", *EXPECT, stdin=subprocess.PIPE).communicate(sealed)
        assert opened == SECRET

    @pytest.mark.parametrize("options", [(), ("--verify-first",)])
    def test_rule_06_changed_frames_never_leave(self, start, message, options):
        changed = bytearray(message)
        changed[-2_000_000] ^= 1
        process = start("decrypt", "-", *EXPECT, *options, stdin=subprocess.PIPE)
        opened, error = process.communicate(changed)
        assert SECRET.startswith(opened)
        assert len(opened) < len(SECRET)
        assert (process.returncode, len(error.splitlines())) == (4, 1)

    def test_verify_first_releases_nothing_of_a_truncated_message(self, start, message):
        process = start("decrypt", "-", *EXPECT, "--verify-first", stdin=subprocess.PIPE)
        assert process.communicate(message[:-1])[0] == b""
        assert process.returncode == 3

    @pytest.mark.parametrize("is_pipe", [True, False])
    def test_verify_first_releases_a_good_message(self, start, message, tmp_path, is_pipe):
        (tmp_path / "m").write_bytes(message)
        source = "-" if is_pipe else tmp_path / "m"
        process = start("decrypt", source, "-", *EXPECT, "--verify-first", stdin=subprocess.PIPE)
        assert process.communicate(message if is_pipe else None)[0] == SECRET

    def test_a_reader_that_leaves_early_ends_it_quietly(self, start, message, tmp_path):
        (tmp_path / "m").write_bytes(message)
        process = start("decrypt", tmp_path / "m", "-", *EXPECT)
        process.stdout.read(10)
        process.stdout.close()
        error = process.stderr.read()
        assert (process.wait(), error) == (1, b"")

    def test_a_folder_does_not_go_into_a_pipe(self, start, tmp_path):
        process = start("encrypt", tmp_path, "-", *CONTEXT)
        process.communicate()
        assert process.returncode == 2


class TestInterruption:
    @pytest.fixture
    def writing(self, start, tmp_path):
        """A process in the middle of writing ``target``: its source is a pipe that does not end."""
        source, target = tmp_path / "source", tmp_path / "out" / "target"
        target.parent.mkdir()
        os.mkfifo(source)
        process = start("encrypt", source, target, *CONTEXT)
        with source.open("wb", buffering=0) as pipe:
            pipe.write(SECRET)
            deadline = time.monotonic() + 30
            while not _writes_below(process.pid, target.parent):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process, target.parent

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_leaves_no_file(self, writing, number):
        process, folder = writing
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
        assert names(folder) == []

    def test_rule_31_even_a_kill_leaves_no_file_where_files_can_be_unnamed(self, writing):
        process, folder = writing
        process.kill()
        process.wait(timeout=30)
        assert names(folder) == []


def _writes_below(pid, folder):
    descriptors = Path(f"/proc/{pid}/fd")
    for descriptor in list(descriptors.iterdir()):
        try:
            if os.readlink(descriptor).startswith(f"{folder}/") and os.stat(descriptor).st_size:
                return True
        except OSError:
            continue
    return False


class TestNoSpace:
    def test_a_file_size_limit_leaves_nothing_and_says_one_line(self, start, message, tmp_path):
        (tmp_path / "m").write_bytes(message)

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        process = start("decrypt", tmp_path / "m", tmp_path / "out", *EXPECT, preexec_fn=limit)
        _, error = process.communicate()
        assert process.returncode == 9
        assert error == f"phicrypt: File too large: {tmp_path / 'out'}\n".encode()
        assert names(tmp_path) == ["m"]

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
    def test_a_full_device_behind_standard_output(self, start, message, tmp_path):
        (tmp_path / "m").write_bytes(message)
        with open("/dev/full", "wb") as full:
            process = start("decrypt", tmp_path / "m", "-", *EXPECT, stdout=full)
            _, error = process.communicate()
        assert (process.returncode, len(error.splitlines())) == (9, 1)


class TestTerminal:
    def test_progress_on_a_terminal_only(self, start, message, tmp_path):
        (tmp_path / "m").write_bytes(message)
        quiet = start("decrypt", tmp_path / "m", tmp_path / "one", *EXPECT)
        assert quiet.communicate() == (b"", b"")
        main, terminal = pty.openpty()
        loud = start("decrypt", tmp_path / "m", tmp_path / "two", *EXPECT, stderr=terminal)
        os.close(terminal)
        assert b"Decrypting" in _read_all(main)
        assert loud.wait() == 0

    def test_ciphertext_is_not_written_to_a_terminal(self, start):
        main, terminal = pty.openpty()
        process = start("encrypt", "-", *CONTEXT, stdout=terminal)
        _, error = process.communicate()
        os.close(terminal)
        os.close(main)
        assert process.returncode == 2
        assert b"not written to a terminal" in error


def _read_all(descriptor):
    pieces = []
    try:
        while piece := os.read(descriptor, 65_536):
            pieces.append(piece)
    except OSError:  # how Linux tells that the other side was closed
        pass
    os.close(descriptor)
    return b"".join(pieces)


class TestStart:
    def python(self, code):
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize("missing", ["typer", "rich"])
    def test_a_missing_package_is_one_clear_line(self, missing):
        code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['--help']; import phicrypt.__main__"
        ending = self.python(code)
        assert ending.returncode == 2
        assert len(ending.stderr.splitlines()) == 1
        assert "pip install 'phicrypt[cli]'" in ending.stderr

    def test_missing_moto_is_one_clear_line(self):
        code = "import sys; sys.modules['moto'] = None; sys.argv[1:] = ['demo']; import phicrypt.__main__"
        ending = self.python(code)
        assert ending.returncode == 2
        assert len(ending.stderr.splitlines()) == 1
        assert "pip install 'phicrypt[demo]'" in ending.stderr

    def test_help_imports_no_area_and_no_aws(self):
        code = (
            "import sys; from phicrypt.cli import run; assert run(['--help']) == 0;"
            "heavy = {'boto3', 'botocore', 'moto', 'cryptography', 'phicrypt.cli.files'} & set(sys.modules);"
            "sys.exit(repr(heavy) if heavy else 0)"
        )
        ending = self.python(code)
        assert ending.returncode == 0, ending.stderr
        assert "encrypt" in ending.stdout

    def test_a_broken_area_breaks_nothing_else(self):
        code = (
            "import sys; sys.modules['phicrypt.cli.transfers'] = None; from phicrypt.cli import run;"
            "assert run(['--help']) == 0; assert run(['--version']) == 0; sys.exit(run(['encrypt', 'x']))"
        )
        ending = self.python(code)
        assert ending.returncode == 2
        assert "'encrypt' cannot be loaded" in ending.stderr
