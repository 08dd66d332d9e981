"""What a `[[service]]` may say, each mistake with its line; whom a word names; pointers; what a request keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.judge.toml_lines import TomlError
from probes.service.load.client import _ABSENT, at_pointer
from probes.service.plan import Service, chosen, declared, headers_of, services, told, usable

GOOD = '[[service]]\nname = "crm"\nurl = "https://crm.example.org/api"\n'


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('methid = "GET"', "b.toml:4: unknown key `methid`; did you mean `method`?"),
        ('body = "{}"', "b.toml:4: unknown key `body`; did you mean `body_file`?"),
        ('method = "PUT"', "b.toml:4: `method` must be 'GET', 'HEAD' or 'POST'"),
        ('method = "POST"', "b.toml:1: the service is asked with POST, which may change something: say `safe = true`"),
        ('body_file = "b"', "b.toml:1: the service has a body_file, and GET sends no body"),
        ('method = "HEAD"\npointer = "/a"', "b.toml:1: the service is asked with HEAD"),
        ('pointer = "a/b"', "b.toml:4: the service pointer is none of RFC 6901"),
        ('pointer = "/a~2"', "b.toml:4: the service pointer is none of RFC 6901"),
        ("rate = 11", "b.toml:4: `rate`: Input should be less than or equal to 10"),
        ("rate = 0", "b.toml:4: `rate`: Input should be greater than 0"),
        ("budget_seconds = inf", "b.toml:4: `budget_seconds`: "),
        ('headers_env = { "a b" = "X" }', "b.toml:4: the service headers_env must map"),
        ('status = "200"', "b.toml:4: `status`: "),
        (GOOD, "b.toml:5: the service 'crm' is there twice"),
    ],
)
def test_each_mistake_has_its_line(line: str, mistake: str, tmp_path: Path) -> None:
    with pytest.raises(TomlError) as error:
        declared(GOOD + line + "\n", "b.toml", tmp_path)
    assert len(error.value.mistakes) == 1 and error.value.mistakes[0].startswith(mistake)


@pytest.mark.parametrize(
    "url", ["https://u:s3cr3t@h/", "https://h/?key=s3cr3t", "ftp://h/s3cr3t", "h/s3cr3t", "https://h/#s3cr3t"]
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(TomlError) as error:
        declared(f'[[service]]\nname = "a"\nurl = "{url}"\n', "b.toml", tmp_path)
    assert "b.toml:3: the service url must be http" in str(error.value) and "s3cr3t" not in str(error.value)
    with pytest.raises(ValueError) as said:
        chosen([url], ())
    assert "://" not in url or "s3cr3t" not in str(said.value)


def test_files_lie_beside_the_settings_and_a_request_keeps_what_was_declared(tmp_path: Path) -> None:
    text = "effort = 'quick'\n" + GOOD + 'headers_file = "crm.headers"\nbudget_seconds = 0.5\n'
    (one,) = declared(text, "b.toml", tmp_path)
    assert one.headers_file == str(tmp_path / "crm.headers")
    assert services(told([one])) == (one,)
    assert declared("effort = 'quick'\n", "b.toml", tmp_path) == ()


def test_a_word_names_a_declared_service_or_is_a_url(tmp_path: Path) -> None:
    crm, calendar = Service(name="crm", url="http://a"), Service(name="calendar", url="http://b")
    assert chosen([], [crm, calendar]) == (crm, calendar)
    assert chosen(["calendar", "calendar"], [crm, calendar]) == (calendar,)
    (by_url,) = chosen(["https://h:8/health"], [crm])
    assert (by_url.name, by_url.url, by_url.method) == ("https://h:8/health", "https://h:8/health", "GET")
    with pytest.raises(ValueError, match=r"mail: no such \[\[service\]\] in bench.toml \(there are: crm\)"):
        chosen(["mail"], [crm])


@pytest.mark.parametrize(
    "text", ["[", "{}", "[1]", '[{"name": "a"}]', '[{"name": "a", "url": "http://h", "rate": 99}]']
)
def test_a_stored_request_that_names_no_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        services(text)


def test_what_a_table_names_must_be_there_and_is_never_quoted(tmp_path: Path) -> None:
    def fails(**fields: Any) -> str:
        with pytest.raises(ValueError) as error:
            usable([Service(name="a", url="http://h", **fields)])
        return str(error.value)

    headers = tmp_path / "headers"
    assert fails(headers_file=str(headers)) == f"{headers}: No such file or directory"
    headers.write_text("A: b\ns3cr3t without a colon\n")
    assert fails(headers_file=str(headers)) == f"{headers}:2: is no header: write `Name: value`"
    headers.write_bytes(b"A: \xff")
    assert "holds no headers" in fails(headers_file=str(headers))
    assert "$NOT_SET is not set" in fails(headers_env={"A": "NOT_SET"})
    assert "is no regular file" in fails(headers_file="/dev/null")
    (tmp_path / "s.json").write_text("[")
    assert "is no JSON" in fails(schema_file=str(tmp_path / "s.json"))


def test_headers_come_from_both(tmp_path: Path) -> None:
    (tmp_path / "h").write_text("# mine\nX-One: 1\n\nX-Two: a: b\n")
    one = Service(name="a", url="http://h", headers_file=str(tmp_path / "h"), headers_env={"X-Three": "V"})
    assert headers_of(one, {"V": " three "}) == {"X-One": "1", "X-Two": "a: b", "X-Three": "three"}


DOCUMENT = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "null": None}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [("", DOCUMENT), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/m~0n", 8), ("/null", None),
     ("/foo/2", _ABSENT), ("/foo/00", _ABSENT), ("/foo/-", _ABSENT), ("/foo/-1", _ABSENT), ("/nope", _ABSENT),
     ("/null/x", _ABSENT), ("/foo/bar", _ABSENT), ("/foo/1/x", _ABSENT)],
)  # fmt: skip
def test_a_pointer_leads_where_rfc_6901_says(pointer: str, found: object) -> None:
    assert at_pointer(DOCUMENT, pointer) == found if found is not _ABSENT else at_pointer(DOCUMENT, pointer) is _ABSENT
