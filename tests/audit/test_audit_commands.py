"""``phicrypt audit``: commands on real logs, their exit codes, and the HTML report in a browser."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.cloudtrail_records import ROLE_ARN, deliver, record_of

from phicrypt import KmsKeyring, MultiKeyring, PhiCrypt, Purpose, RawAesKeyring
from phicrypt.audit import AuditTrail, JsonlSink, acting_as
from phicrypt.cli import run
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.join import join, log_events, trail_source
from phicrypt.evidence.questions import incident
from phicrypt.evidence.report import render
from phicrypt.evidence.verify import verify
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.recovery.break_glass import break_glass
from phicrypt.testing import StrictKms
from phicrypt.witness import AnchoredSink, ResourceTokens

Run = Callable[..., tuple[int, str, str]]


@dataclass
class Scene:
    """A log with uses by several actors, CloudTrail's side of it, and one foreign use of the key."""

    log: Path
    trail: Path
    key_arn: str
    anchor_key_arn: str
    tokens: ResourceTokens
    hostile_name: str = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    tokens = ResourceTokens({"k1": b"t" * 32})
    with StrictKms() as kms:
        key_arn, anchor_key_arn = kms.create_key(), kms.create_key()
        sink = AnchoredSink(
            JsonlSink(folder / "audit.jsonl"), anchor_key_arn, client=kms.client(), every_seconds=600
        )
        trail = AuditTrail([sink], application="portal", principal=ROLE_ARN, resource_tokens=tokens)
        phi = PhiCrypt(keyring=KmsKeyring(key_arn, client=kms.client()), audit=trail)
        with acting_as("dr-1", Purpose.TREATMENT):
            message = phi.encrypt(b"x" * 100, context={"tenant": "clinic-7"})
            for _ in range(3):
                phi.decrypt(message, context={"tenant": "clinic-7"})
        with acting_as("clerk-2", Purpose.DISCLOSURE, recipient="health-authority"):
            phi.decrypt(message, context={"tenant": "clinic-7"})
        with acting_as("<script>alert(1)</script>", Purpose.RESEARCH):
            use = trail.begin("s3.get_object", format="esdk", resource=("s3", "bucket", "jane-doe.pdf"))
            use.end(byte_count=5)
        with break_glass(
            phi,
            actor="dr-9",
            reason="a reason that is long enough",
            expires_in_seconds=60,
            keyring=phi.provider.keyring,
        ) as grant:
            grant.decrypt(message, context={"tenant": "clinic-7"})
        trail.close()
        known = len(kms.requests)
        kms.client().decrypt(
            KeyId=key_arn,
            CiphertextBlob=kms.client().encrypt(KeyId=key_arn, Plaintext=b"x")["CiphertextBlob"],
        )
        records = [
            record_of(request, anchor_key_arn if "WithoutPlaintext" in request.operation else key_arn)
            for request in kms.requests
            if request.operation != "CreateKey"
        ]
        assert len(kms.requests) == known + 2
        deliver(folder / "trail", records)
    return Scene(folder / "audit.jsonl", folder / "trail", key_arn, anchor_key_arn, tokens)


@pytest.fixture
def phicrypt(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "220")

    def command(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["audit", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command


def test_verify_says_what_the_chain_proves(scene: Scene, phicrypt: Run) -> None:
    code, out, _ = phicrypt("verify", scene.log)
    assert code == 0
    assert "does not show that the log was not rewritten" in " ".join(out.split())
    code, out, _ = phicrypt(
        "verify", scene.log, "--trail", scene.trail, "--anchor-key", scene.anchor_key_arn, "--json"
    )
    answer = json.loads(out)
    assert code == 0
    assert answer["valid"] is True
    assert answer["anchors_confirmed"] == 1


def test_verify_names_the_altered_line_and_ends_with_one(scene: Scene, phicrypt: Run, tmp_path: Path) -> None:
    lines = scene.log.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"dr-1", b"dr-2")
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    code, out, _ = phicrypt("verify", tmp_path / "audit.jsonl")
    assert code == 1
    assert "audit.jsonl:4" in out
    (tmp_path / "audit.jsonl").write_bytes(b"".join(scene.log.read_bytes().splitlines(keepends=True)[:4]))
    assert phicrypt("verify", tmp_path / "audit.jsonl")[0] == 0
    assert phicrypt("verify", tmp_path / "audit.jsonl", "--trail", scene.trail)[0] == 1


def test_join_finds_the_foreign_uses_and_ends_with_one(scene: Scene, phicrypt: Run) -> None:
    code, out, _ = phicrypt("join", "--log", scene.log, "--trail", scene.trail, "--json")
    answer = json.loads(out)
    assert code == 1
    assert answer["counts"]["in CloudTrail but not here"] == 2
    assert answer["counts"]["used here but not in CloudTrail"] == 0
    assert answer["counts"]["exception"] == 0
    assert answer["counts"]["matched"] == 4
    assert answer["uses_with_cached_keys"] == 3
    foreign = [one for one in answer["findings"] if one["category"] == "in CloudTrail but not here"]
    assert {one["operation"] for one in foreign} == {"Encrypt", "Decrypt"}
    code, out, _ = phicrypt("join", "--log", scene.log, "--trail", scene.trail)
    assert code == 1
    assert "in CloudTrail but not here" in out


def test_join_tells_how_many_lines_hold_no_event(scene: Scene, phicrypt: Run, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(scene.log.read_text().replace('"actor":"clerk-2"', '"actor":["clerk-2"]'))
    _, out, _ = phicrypt("join", "--log", log, "--trail", scene.trail)
    assert "2 lines of the log hold no event" in out
    _, out, _ = phicrypt("join", "--log", log, "--trail", scene.trail, "--json")
    assert json.loads(out)["unreadable_lines"] == 2


def test_join_prints_csv_without_formulas(scene: Scene, phicrypt: Run) -> None:
    _, out, _ = phicrypt("join", "--log", scene.log, "--trail", scene.trail, "--csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert len(table) == 6
    assert {row["category"] for row in table} == {"matched", "in CloudTrail but not here"}
    assert all(re.match(r"\d{4}-\d\d-\d\dT", row["time"]) for row in table)


def test_who_used_a_resource_by_its_token(scene: Scene, phicrypt: Run) -> None:
    token = scene.tokens.token(("s3", "bucket", "jane-doe.pdf"))
    code, out, _ = phicrypt("who", "--log", scene.log, "--resource", token, "--since", "7d", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["actor"], row["operation"], row["bytes"]) == (scene.hostile_name, "s3.get_object", 5)
    assert phicrypt("who", "--log", scene.log, "--resource", "s3://bucket/jane-doe.pdf")[0] == 2


def test_what_an_actor_used_and_what_cloudtrail_says(scene: Scene, phicrypt: Run) -> None:
    _, out, _ = phicrypt("actor", "dr-1", "--log", scene.log, "--trail", scene.trail, "--json")
    found = json.loads(out)
    assert [row["operation"] for row in found] == ["encrypt", "decrypt", "decrypt", "decrypt"]
    assert {row["cloudtrail"] for row in found} == {"matched"}
    assert phicrypt("actor", "dr-1", "--log", scene.log, "--since", "2099-01-01", "--json")[1].strip() == "[]"


def test_disclosures_have_the_fields_of_the_accounting(scene: Scene, phicrypt: Run) -> None:
    _, out, _ = phicrypt("disclosures", "--log", scene.log, "--json")
    disclosed = json.loads(out)
    assert [row["purpose"] for row in disclosed] == ["disclosure", "research"]
    assert disclosed[0]["recipient"] == "health-authority"
    assert disclosed[0]["description"] == "tenant=clinic-7"
    assert set(disclosed[0]) == {"date", "recipient", "description", "purpose", "disclosed_by", "use_id"}


@pytest.mark.parametrize(("given", "recorded"), [("PUBHLTH", "public-health"), ("public-health", "public-health")])
def test_what_was_opened_for_public_health_is_accounted_for(
    tmp_path: Path, phicrypt: Run, given: str, recorded: str
) -> None:
    log = tmp_path / "audit.jsonl"
    trail = AuditTrail([JsonlSink(log)])
    for purpose in (given, "TREAT"):
        with acting_as("clerk-2", purpose, recipient="health-authority"):
            trail.begin("decrypt").end()
    trail.close()
    disclosed = json.loads(phicrypt("disclosures", "--log", log, "--json")[1])
    assert [(row["purpose"], row["recipient"]) for row in disclosed] == [(recorded, "health-authority")]
    with pytest.raises(ConfigurationError):
        acting_as("clerk-2", "NOSUCH").__enter__()


def test_incident_tells_what_was_decryptable_and_what_was_decrypted(scene: Scene, phicrypt: Run) -> None:
    _, out, _ = phicrypt("incident", "--log", scene.log, "--key", scene.key_arn, "--from", "1h", "--json")
    answer = json.loads(out)
    assert answer["decryptable"] == {"tenant=clinic-7": 1}
    assert len(answer["decrypted"]) == 5
    assert answer["actors"] == {"dr-1": 3, "clerk-2": 1, "dr-9": 1}
    _, out, _ = phicrypt(
        "incident",
        "--log",
        scene.log,
        "--key",
        scene.key_arn,
        "--from",
        "2020-01-01",
        "--to",
        "2020-02-01",
        "--json",
    )
    assert json.loads(out)["sealed_messages"] == 0


def test_incident_counts_what_was_sealed_for_several_recipients(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    rsa_arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    public_key = generate_private_key(65_537, 2_048).public_key()
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    daily, other = (RawAesKeyring("clinic", name, bytes(32)) for name in ("daily", "other"))
    with PhiCrypt(
        MultiKeyring(daily, other, KmsRsaKeyring(rsa_arn, public_key=pem)), audit=[JsonlSink(log)]
    ) as phi:
        phi.decrypt(phi.encrypt(b"x", context={"tenant": "clinic-7"}), context={"tenant": "clinic-7"})
    for key, opened in (("daily", 1), ("other", 0), (rsa_arn, 0)):
        found = incident(log_events(log), key, 0, 2**62)
        assert (found.decryptable, len(found.decrypted)) == ({"tenant=clinic-7": 1}, opened)


def test_break_glass_lists_what_awaits_review_until_somebody_reviewed_it(
    scene: Scene, phicrypt: Run, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_bytes(scene.log.read_bytes())
    code, out, _ = phicrypt("break-glass", "--log", log, "--json")
    (grant,) = json.loads(out)
    assert code == 1
    assert (grant["actor"], grant["uses"]) == ("dr-9", 1)
    assert phicrypt("review", grant["grant_id"], "--log", log, "--reviewer", "dr-9")[0] == 2
    assert phicrypt("review", "unknown", "--log", log, "--reviewer", "officer")[0] == 2
    assert phicrypt("review", grant["grant_id"], "--log", log, "--reviewer", "officer")[0] == 0
    assert phicrypt("break-glass", "--log", log)[0] == 0
    assert "officer" in phicrypt("break-glass", "--log", log, "--all")[1]
    assert verify(log).is_valid


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "missing.jsonl"),
        ("join", "--log", "missing.jsonl", "--trail", "missing"),
        ("actor", "x", "--log", "missing.jsonl", "--since", "yesterday"),
    ],
)
def test_wrong_arguments_end_with_two(phicrypt: Run, arguments: tuple[str, ...]) -> None:
    code, _, error = phicrypt(*arguments)
    assert code == 2
    assert error.startswith("phicrypt:")


# The HTML report


class Checker(html.parser.HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data") or name.startswith("on"):
                self.loads.append(f"{tag} {name}={value}")


@pytest.fixture(scope="module")
def report(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    read, _ = trail_source(str(scene.trail), client=lambda service: None)
    with join(scene.log, read) as joined:
        path.write_text(render(joined, title="Audit <of> the portal", verification=verify(scene.log)))
    return path


def test_the_report_is_self_contained_and_escapes_what_logs_say(scene: Scene, report: Path) -> None:
    checker = Checker()
    text = report.read_text()
    checker.feed(text)
    assert checker.loads == []
    assert "script" not in checker.tags
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;script&gt;" in text
    assert scene.hostile_name not in text


def test_the_report_begins_with_what_needs_an_explanation(report: Path) -> None:
    text = report.read_text()
    places = [
        text.index(heading) for heading in ("need an explanation", "<h2>In CloudTrail but not here", "<h2>Actors")
    ]
    assert places == sorted(places)


def test_findings_can_be_sorted_without_any_script(report: Path) -> None:
    text = report.read_text()
    table = text[text.index("<h2>In CloudTrail but not here") :]
    rows = re.findall(r'<tr style="([^"]*)">(.*?)</tr>', table[: table.index("</table>")])
    assert len(rows) == 2
    columns = re.findall(r"<th>([^<]*)", table[: table.index("</thead>")])
    for column, name in enumerate(columns):
        assert re.search(rf"<input type=radio name=sort-\d class=s{column}( checked)?> {re.escape(name)}<", table)
        assert f"section:has(.s{column}:checked) tbody tr {{ order: var(--s{column}); }}" in text
        cells = {}
        for style, row in rows:
            rank = int(re.search(rf"--s{column}:(\d+)", style)[1])  # type: ignore[index]
            cells[rank] = re.findall(r"<td class=text>(.*?)</td>", row)[column]
        assert [cells[rank] for rank in range(2)] == sorted(cells.values())


def test_the_html_option_writes_the_report(scene: Scene, phicrypt: Run, tmp_path: Path) -> None:
    code, _, error = phicrypt(
        "join", "--log", scene.log, "--trail", scene.trail, "--html", tmp_path / "report.html", "--json"
    )
    assert code == 1
    assert "report.html" in error
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def in_browser(page: Path, width: int, folder: Path, *options: str) -> str:
    assert CHROMIUM is not None
    result = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            "--no-first-run",
            f"--user-data-dir={folder}",
            f"--window-size={width},900",
            "--enable-logging=stderr",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in result.stderr
    return result.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt package chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_report_without_errors_and_without_scrolling_sideways(
    report: Path, tmp_path: Path, width: int
) -> None:
    """The page is measured by a script that only the test adds, in a frame as wide as a phone."""
    probe = tmp_path / "probe.html"
    content = report.read_text()
    relaxed = re.sub(r"<meta http-equiv=Content-Security-Policy[^>]*>", "", content)
    assert relaxed != content
    (tmp_path / "relaxed.html").write_text(relaxed)
    probe.write_text(
        f"<!doctype html><iframe id=f style='width:{width}px;height:800px;border:0' src='relaxed.html'></iframe>"
        "<p id=answer></p><script>f.onload = () => { const d = f.contentDocument;"
        "const bars = d.querySelectorAll('svg rect').length, tiles = d.querySelectorAll('.tile').length;"
        "const lines = [...d.querySelectorAll('p, td, th, text')].filter(e => e.textContent);"
        "const smallest = Math.min(...lines.map(e => e.getBoundingClientRect().height));"
        "answer.textContent = JSON.stringify({wide: d.documentElement.scrollWidth, bars, tiles, smallest,"
        "heading: d.querySelector('h1').textContent}); }</script>"
    )
    dom = in_browser(probe, 1400, tmp_path / "profile", "--allow-file-access-from-files", "--dump-dom")
    found = re.search(r'<p id="answer">(.*?)</p>', dom)
    assert found is not None
    answer = json.loads(html.unescape(found[1]))
    assert answer["wide"] <= width
    assert answer["smallest"] >= 12  # pixels
    assert answer["bars"] >= 1
    assert answer["tiles"] == 9
    assert answer["heading"] == "Audit <of> the portal"
    assert "need an explanation" in in_browser(report, width, tmp_path / "profile-2", "--dump-dom")
