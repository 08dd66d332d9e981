"""Against services of our own: each way to fail by its name, times by phase, and no secret in any record."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from bench.model import Code
from probes.common.http import Broken
from probes.service.load.client import Client, _hold_against
from probes.service.records import line
from tests.probes.service.harness import Asked, server, service

pytestmark = pytest.mark.slow

FAULTS = [
    ("status 403", {}, Code.UNAUTHORIZED, "HTTP 403"),
    ("status 404", {}, Code.NOT_FOUND, "HTTP 404"),
    ("status 429", {}, Code.THROTTLED, "HTTP 429"),
    ("status 503", {}, Code.SERVER_ERROR, "HTTP 503"),
    ("status 201", {"status": 200}, Code.NOT_AS_DECLARED, "HTTP 201, declared is 200"),
    ("no pointer", {"pointer": "/records/0/id"}, Code.NOT_AS_DECLARED, "/records/0/id is not there"),
    ("no json", {"pointer": "/records"}, Code.WRONG_CONTENT, "no JSON"),
    ("large", {"pointer": "/records"}, Code.TOO_LARGE, "more than 1 MiB"),
    ("reset", {}, Code.CONNECTION_RESET, "its connection broke"),
    ("torn", {}, Code.TORN, ""),
]


@pytest.mark.parametrize(("fault", "fields", "code", "detail"), FAULTS, ids=[fault for fault, *_ in FAULTS])
def test_each_third_that_fails_is_counted_under_its_name(
    fault: str, fields: dict[str, Any], code: Code, detail: str
) -> None:
    with server(fault=fault, every=3) as port:
        asked = Asked(service(port, **fields), requests=45)
    failed = [answer for answer in asked.answers if answer.code is not None]
    assert {answer.code for answer in failed} == {code}
    if fault != "reset":  # a connection that breaks is asked once more, which is another request to the service
        assert len(failed) == len(asked.answers) // 3
    on_time = [answer.good for answer in asked.answers if asked.service.counts(answer.lag)]
    assert failed and asked.ratio.value == pytest.approx(sum(on_time) / len(on_time))
    assert detail in " ".join(answer.detail for answer in failed)
    assert sum(f" failed with {code}" in text for text in asked.lines) == 1
    assert [m.labels["code"] for m in asked.of("service_failed_requests")] == [code]


@pytest.mark.parametrize("fault", ["hangs", "slow headers"])
def test_what_is_not_there_in_time_is_given_up(fault: str) -> None:
    with server(fault=fault) as port:
        asked = Asked(service(port, rate=10.0, budget_seconds=3.0), requests=10)
    assert asked.codes == {Code.TOO_SLOW}
    assert {answer.detail for answer in asked.answers} == {"no end within 3 s, before its headers"}
    (longest,) = asked.of("service_response_seconds", phase="whole", connection="cold", statistic="max")
    assert longest.value >= 3.0


def test_an_answer_that_comes_late_is_no_success() -> None:
    with server(delay=3.5, every=1) as port:
        asked = Asked(service(port, rate=10.0, budget_seconds=3.0), requests=10)
    assert asked.ratio.value == 0.0 and Code.TOO_SLOW in asked.codes


def test_a_token_that_is_never_taken_decides_nothing_and_is_soon_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", "Bearer planted-for-this-test")
    with server(fault="status 401") as port:
        asked = Asked(service(port, rate=20.0, headers_env={"Authorization": "CRM_TOKEN"}), requests=100)
    assert asked.ratio.invalid == "unauthorized: token in $CRM_TOKEN rejected by crm"
    assert 10 <= len(asked.answers) < 30, "it goes on knocking"
    assert len(asked.lines) == 1 and "token in $CRM_TOKEN rejected" in asked.lines[0]


def test_a_token_that_is_taken_now_and_then_is_a_failure() -> None:
    with server(fault="status 401", every=4) as port:
        asked = Asked(service(port), requests=60)
    assert asked.ratio.invalid is None and 0.5 < asked.ratio.value < 0.9
    assert asked.of("service_failed_requests", code="unauthorized")


def test_a_redirect_is_followed_on_the_same_host_alone(tmp_path: Path) -> None:
    with server(fault="to itself") as port:
        assert Asked(service(port), requests=20).codes == {None}
    other = tmp_path / "other.jsonl"
    with (
        server(log=str(other)) as elsewhere,
        server(fault="status 302", location=f"http://127.0.0.1:{elsewhere}/secret-path?token=s3cr3t") as port,
    ):
        asked = Asked(service(port), requests=20)
    assert asked.codes == {Code.REDIRECTED} and not other.read_text()
    assert asked.answers[0].detail == f"to http://127.0.0.1:{elsewhere}"


@pytest.mark.parametrize(
    ("location", "said"),
    [("/x", "in a circle"), ("", "without a word of where to"), ("http://[bad", "to what is no address")],
)
def test_a_redirect_that_leads_nowhere_costs_one_request(location: str, said: str, tmp_path: Path) -> None:
    """Each further request of a circle would come on top of the rate."""
    log = tmp_path / "log.jsonl"
    with server(fault="status 302", location=location, log=str(log)) as port:
        asked = Asked(service(port), requests=10)
    assert {(answer.code, answer.detail) for answer in asked.answers} == {(Code.REDIRECTED, said)}
    assert len(log.read_text().splitlines()) == len(asked.answers)


def test_nobody_who_listens_and_a_name_that_is_none() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert Asked(service(port), requests=10).codes == {Code.CONNECTION_REFUSED}
    asked = Asked(service(1, url="http://no-such-host.invalid/"), requests=10)
    assert asked.codes <= {Code.HOST_UNKNOWN, Code.CONNECT_TIMED_OUT}


def test_a_listener_that_takes_no_connection_times_out() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        asked = Asked(service(listener.getsockname()[1], rate=20.0, budget_seconds=0.5), requests=10)
        for one in waiting:
            one.close()
    assert asked.codes == {Code.CONNECT_TIMED_OUT}


def test_a_handshake_without_end_and_a_silent_resolver_are_no_firewall(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)  # the kernel takes connections, and nobody speaks
        port = listener.getsockname()[1]
        asked = Asked(service(port, url=f"https://127.0.0.1:{port}", rate=20.0, budget_seconds=0.5), requests=10)
        assert asked.codes == {Code.TLS_FAILED} and "no end of the TLS handshake" in asked.lines[0]

    async def silent(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "getaddrinfo", silent)
    asked = Asked(service(1, url="http://crm.example", rate=20.0, budget_seconds=0.5), requests=10)
    assert asked.codes == {Code.HOST_UNKNOWN} and "no word of the resolver within 0.5 s" in asked.lines[0]


# --- TLS


@pytest.mark.parametrize(
    ("names", "days", "code"),
    [
        (("127.0.0.1",), 20, None),
        (("elsewhere.example",), 20, Code.TLS_WRONG_HOST),
        (("127.0.0.1",), -1, Code.TLS_EXPIRED),
    ],
    ids=["sound", "wrong host", "expired"],
)
def test_what_is_wrong_with_a_certificate_is_said(
    names: tuple[str, ...], days: int, code: Code | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    both = tmp_path / "both.pem"
    authority.issue_cert(
        *names, not_before=ends - datetime.timedelta(days=60), not_after=ends
    ).private_key_and_cert_chain_pem.write_to_path(both)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with server(certificate=str(both)) as port:
        asked = Asked(service(port, rate=20.0, url=f"https://127.0.0.1:{port}/x"), requests=20)
    assert asked.codes == {code}
    left = [m.value for m in asked.of("service_certificate_left_seconds")]
    if code is None:
        assert len(left) == 1 and 19.9 < left[0] / 86400 < 20.1
        assert all(answer.tls is not None for answer in asked.answers if not answer.kept)
    else:
        assert not left


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    with server(certificate=str(both)) as port:
        assert Asked(service(port, url=f"https://127.0.0.1:{port}/x"), requests=10).codes == {Code.TLS_FAILED}


# --- how, and when


def test_nine_of_ten_go_out_on_a_kept_connection_and_the_phases_are_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with server(delay=0.08, body_delay=0.16, log=str(log)) as port:
        asked = Asked(service(port, rate=3.0), requests=30)
    seen = [json.loads(text) for text in log.read_text().splitlines()]
    cold = [answer for answer in asked.answers if not answer.kept]
    assert {answer.n for answer in cold} >= {0, 10, 20} and len(cold) <= 5
    assert len({one["connection"] for one in seen}) == len(cold)
    assert all(answer.connect is not None for answer in cold)
    assert all(answer.connect is None for answer in asked.answers if answer.kept)
    (headers,) = asked.of("service_response_seconds", connection="kept", phase="first_byte", statistic="p50")
    (whole,) = asked.of("service_response_seconds", connection="kept", phase="whole", statistic="p50")
    assert 2.0 < whole.value / headers.value < 4.0, "truly (0.08 + 0.16) / 0.08 = 3"


def test_it_never_asks_more_often_than_its_rate_whatever_becomes_of_the_answers() -> None:
    with server(delay=0.5) as port:
        asked = Asked(service(port, rate=50.0), requests=40)
    sent = [answer.scheduled for answer in asked.answers]
    assert sent == pytest.approx([n / 50.0 for n in range(40)], abs=1e-6)
    assert asked.codes == {None}, "an answer that is out must not hold up the next request"


def test_a_schema_holds_the_answer_and_fetches_nothing(tmp_path: Path) -> None:
    good = {"type": "object", "properties": {"records": {"items": {"required": ["id"]}}}}
    for schema, codes in (
        (good, {None}),
        ({"properties": {"records": {"maxItems": 0}}}, {Code.NOT_AS_DECLARED}),
    ):
        file = tmp_path / "schema.json"
        file.write_text(json.dumps(schema))
        with server() as port:
            asked = Asked(service(port, schema_file=str(file)), requests=10)
        assert asked.codes == codes
    assert asked.answers[0].detail == "against its schema at #/properties/records/maxItems"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"records": {"$ref": "https://nowhere.example/x"}}}, "refers to what is not in it"),
        ({"items": {"$ref": "#/$defs/absent"}}, "refers to what is not in it"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"patternProperties": {"(": {}}}, "is no JSON Schema"),
    ],
)
def test_a_schema_that_can_hold_nothing_is_refused_before_anything_is_sent(
    schema: object, said: str, tmp_path: Path
) -> None:
    """It would end the asking of all services, or fail one that does nothing wrong."""
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    with pytest.raises(ValueError, match=said) as refused:
        Client(service(9, schema_file=str(file)))
    assert str(refused.value).startswith(str(file))


def test_an_answer_too_deep_for_its_schema_is_not_as_declared(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"items": {"$ref": "#"}, "examples": [{"$ref": "https://nowhere.example"}]}))
    validator = Client(service(9, schema_file=str(file)))._validator
    deep = json.loads("[" * 900 + "]" * 900)
    with pytest.raises(Broken) as wrong:
        _hold_against(validator, deep)
    assert wrong.value.code is Code.NOT_AS_DECLARED


def test_post_sends_its_body_and_headers(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"ask": "s3cr3t-body"}')
    (tmp_path / "headers").write_text("# a comment\nX-Api-Key: s3cr3t-key\nContent-Type: text/x-mine\n")
    log = tmp_path / "log.jsonl"
    with server(log=str(log)) as port:
        fields: dict[str, Any] = {"method": "POST", "safe": True, "body_file": str(tmp_path / "body.json"),
                  "headers_file": str(tmp_path / "headers"), "query": {"q": "a b"}}  # fmt: skip
        asked = Asked(service(port, **fields), requests=10)
    assert asked.codes == {None}
    seen = json.loads(log.read_text().splitlines()[0])
    assert seen["head"].startswith("POST /x?q=a+b HTTP/1.1") and seen["body"] == '{"ask": "s3cr3t-body"}'
    assert "X-Api-Key: s3cr3t-key" in seen["head"] and "text/x-mine" in seen["head"]


@pytest.mark.parametrize("fault", ["", "status 401", "status 503", "no json", "torn", "status 302"])
def test_planted_secrets_are_in_no_record_and_no_line(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    planted = {"file": "s3cr3t-in-a-file", "env": "s3cr3t-in-the-environment", "body": "s3cr3t-in-the-body"}
    (tmp_path / "headers").write_text(f"X-Api-Key: {planted['file']}\n")
    (tmp_path / "body").write_text(planted["body"])
    monkeypatch.setenv("CRM_TOKEN", f"Bearer {planted['env']}")
    with server(fault=fault, every=2, location=f"http://127.0.0.1:9/{planted['env']}?x={planted['file']}") as port:
        asked = Asked(
            service(port, method="POST", safe=True, body_file=str(tmp_path / "body"), pointer="/records",
                    headers_file=str(tmp_path / "headers"), headers_env={"Authorization": "CRM_TOKEN"}),
            requests=20,
        )  # fmt: skip
    told = "".join(map(line, asked.answers)) + "".join(asked.lines)
    told += "".join(m.model_dump_json() for m in asked.measurements) + "".join(capfd.readouterr())
    for secret in [*planted.values(), "s3cr3t-answer"]:
        assert secret not in told
        assert not any(secret[at : at + 8] in told for at in range(len(secret) - 8))
    assert os.environ["CRM_TOKEN"]


def test_a_connection_that_breaks_is_a_failure_whatever_is_asked_next(tmp_path: Path) -> None:
    """aiohttp asks once more by itself, so that the service sees more requests than there were."""
    log = tmp_path / "log.jsonl"
    with server(fault="reset", every=5, delay=0.05, log=str(log)) as port:
        asked = Asked(service(port), requests=100)
    served = len(log.read_text().splitlines())
    failed = sum(not answer.good for answer in asked.answers)
    assert failed and failed == served - len(asked.answers), "each that was asked once more, and no other"
