"""Each way in which a server can fail: its own code, one line, what to do; nothing hangs, and nothing is left.

A fault that is there from the start ends the probe with that reason; one that comes later is the request's outcome.
"""

from __future__ import annotations

import datetime
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from bench.model import Code
from probes.common.http import REMEDIES
from probes.common.pipe import of
from probes.endpoint.records import Answer
from tests import forks
from tests.probes.endpoint.harness import Simulated, loaded, simulated

pytestmark = pytest.mark.slow

#: What the server does with each request: the code, and a word of the line that a person reads.
FAULTS = [
    ("status 401", Code.UNAUTHORIZED, "without a key that is valid"),
    ("status 403", Code.UNAUTHORIZED, "without a key that is valid"),
    ("status 404", Code.NOT_FOUND, "it is so"),
    ("status 429", Code.THROTTLED, "it is so"),
    ("status 500", Code.SERVER_ERROR, "it is so"),
    ("status 302", Code.REDIRECTED, "to http://127.0.0.1:9/elsewhere"),
    ("status 400", Code.BAD_REQUEST, "it is so"),
    ("html", Code.WRONG_CONTENT, "text/html"),
    ("not http", Code.GARBLED, "http"),
    ("broken http", Code.GARBLED, "http"),
    ("long header", Code.GARBLED, "http"),
    ("garbage events", Code.GARBLED, "no JSON"),
    ("no object", Code.GARBLED, "no object"),
    ("long line", Code.TOO_LARGE, "bytes"),
    ("gzip bomb", Code.WRONG_CONTENT, "gzip"),
    ("endless", Code.ENDLESS, "chunks"),
    ("error in the stream", Code.SERVER_ERROR, "out of memory"),
    ("no content", Code.NO_CONTENT, "without any content"),
    ("torn", Code.TORN, "http"),
    ("reset", Code.CONNECTION_RESET, "http"),
    ("reset in the headers", Code.CONNECTION_RESET, "http"),
    ("reset in the stream", Code.TORN, "http"),
    ("hangs", Code.TOO_SLOW, "before its headers"),
    ("slow headers", Code.TOO_SLOW, "before its headers"),
    ("hangs in the stream", Code.TOO_SLOW, "in the stream"),
]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    forks.begin()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.mark.parametrize(("fault", "code", "word"), FAULTS, ids=[fault for fault, *_ in FAULTS])
def test_a_fault_from_the_start_is_named_with_what_to_do(fault: str, code: Code, word: str, tmp_path: Path) -> None:
    with simulated(tmp_path, fault=fault) as server:
        load = loaded(server.url, timeout=1.5, model="sim")
    assert load.refused is not None and load.returncode == 0, load.stderr
    assert load.refused.reason.startswith(f"{code}: {server.url}: ")
    assert word.lower() in load.refused.reason.lower() and "\n" not in load.refused.reason
    assert load.refused.remedy == REMEDIES[code]
    assert "?" not in load.refused.reason, "a query of the server's may hold a token of its own"


@pytest.mark.parametrize(
    ("fault", "code"),
    [("status 500", Code.SERVER_ERROR), ("torn", Code.TORN), ("reset", Code.CONNECTION_RESET), ("hangs", Code.TOO_SLOW),
     ("garbage events", Code.GARBLED)],
)  # fmt: skip
def test_each_tenth_that_fails_is_counted_and_told_apart(fault: str, code: Code, tmp_path: Path) -> None:
    with simulated(tmp_path, fault=fault, every=10, after=1) as server:
        load = loaded(server.url, timeout=1.5)
    every = of(load.records, Answer)
    failed = [answer for answer in every if answer.failed]
    assert {answer.code for answer in failed} == {str(code)}
    asked = len(every) + 1  # the first completion
    assert len(failed) == asked // 10
    assert all(answer.token_count == 8 for answer in every if not answer.failed)


def test_a_server_that_speaks_http_1_0_is_measured_like_any_other(tmp_path: Path) -> None:
    with simulated(tmp_path, fault="http/1.0") as server:
        load = loaded(server.url)
    assert {answer.code for answer in load.held} == {None} and len(load.held) == 60


def test_a_server_on_ipv6_alone_is_measured_like_any_other(tmp_path: Path) -> None:
    with simulated(tmp_path, host="::1") as server:
        load = loaded(server.url, enough=10)
    assert {answer.code for answer in load.held} == {None}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def full_backlog() -> Iterator[int]:
    """A listener that takes no connection: those that wait fill its queue, and the next one hangs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            yield int(port)
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:{free}", Code.CONNECTION_REFUSED),
        ("http://nowhere.invalid:8000", Code.HOST_UNKNOWN),
        ("http://127.0.0.1:{full}", Code.CONNECT_TIMED_OUT),
    ],
)
def test_a_server_that_cannot_be_reached_is_named_with_what_to_do(url: str, code: Code) -> None:
    with full_backlog() as full:
        load = loaded(url.format(free=free_port(), full=full), timeout=20.0)
    assert load.refused is not None and load.refused.reason.startswith(f"{code}: ")
    assert load.refused.remedy == REMEDIES[code]


@contextmanager
def with_tls(folder: Path, name: str, **issued: Any) -> Iterator[tuple[Simulated, Path]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert(name, **issued).private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    with simulated(folder, certificate=str(folder / "server.pem")) as server:
        yield server, folder / "ca.pem"


def test_tls_is_spoken_with_whom_the_certificate_names(tmp_path: Path) -> None:
    with with_tls(tmp_path, "127.0.0.1") as (server, authority):
        load = loaded(server.url, env={"SSL_CERT_FILE": str(authority)}, enough=10)
        unknown = loaded(server.url)
    assert {answer.code for answer in load.held} == {None}
    assert unknown.refused is not None and unknown.refused.reason.startswith("tls_failed: ")


def test_a_certificate_that_is_over_or_another_s_is_told_apart(tmp_path: Path) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    with with_tls(tmp_path, "127.0.0.1", not_before=past, not_after=past + datetime.timedelta(9)) as (
        server,
        authority,
    ):
        over = loaded(server.url, env={"SSL_CERT_FILE": str(authority)})
    with with_tls(tmp_path, "other.example.org") as (server, authority):
        other = loaded(server.url, env={"SSL_CERT_FILE": str(authority)})
    assert over.refused is not None and over.refused.reason.startswith("tls_expired: ")
    assert other.refused is not None and other.refused.reason.startswith("tls_wrong_host: ")
    assert over.refused.remedy == REMEDIES[Code.TLS_EXPIRED]


def test_https_where_none_is_spoken_is_no_certificate_s_fault(tmp_path: Path) -> None:
    with simulated(tmp_path) as server:
        load = loaded(server.url.replace("http:", "https:"))
    assert load.refused is not None and load.refused.reason.startswith("tls_failed: ")


def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with simulated(tmp_path, models=("llama", "qwen")) as server:
        load = loaded(server.url, model="lama")
    assert load.refused is not None
    assert load.refused.reason == f"model_unknown: {server.url}: lama; there are llama, qwen"


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_every_code_has_a_remedy_of_one_line(code: Code) -> None:
    assert REMEDIES[code] and "\n" not in REMEDIES[code] and len(REMEDIES[code]) < 120
