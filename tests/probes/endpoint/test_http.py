"""Addresses, keys and secrets of servers that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.model import Code
from probes.common.http import REMEDIES, Secrets, address, key_in, key_of, of_status

KEY = "sk-9vQ2mZrT7LwX4bNd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://gpu1:8000", "http://gpu1:8000"),
        ("https://api.example.org/v1/", "https://api.example.org/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://x.example.org/openai?api-version=2024-10-21", "https://x.example.org/openai"),
    ],
)
def test_what_is_shown_has_no_query(text: str, shown: str) -> None:
    assert address(text).shown == shown


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{KEY}@gpu1:8000",
        f"http://{KEY}@gpu1:8000",
        f"http://gpu1:8000/v1?api_key={KEY}",
        f"http://gpu1:8000/v1?{KEY}",
        f"http://gpu1:8000/v1#{KEY}",
        f"http://gpu1:{KEY}/v1",
        "gpu1:8000",
        "ftp://gpu1",
        "http://",
        "http://gpu1:99999",
        "http://gpu1:0",
        "http://gpu1:80/a b",
        "http://gpu1\n",
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"URL|password|secret|port 0") as refused:
        address(text)
    assert KEY not in str(refused.value) and "gpu1" not in str(refused.value)


def test_a_key_is_one_line_of_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert key_in(file) == KEY
    monkeypatch.setenv("BENCH_ENDPOINT_KEY", "from-the-environment")
    assert key_of(str(file), "BENCH_ENDPOINT_KEY") == KEY
    assert key_of(None, "BENCH_ENDPOINT_KEY") == "from-the-environment"
    for none in ("two\nlines-of-a-key", "schlüssel-von-uns", "a" * 20_000):
        monkeypatch.setenv("BENCH_ENDPOINT_KEY", none)
        with pytest.raises(ValueError, match=r"^\$BENCH_ENDPOINT_KEY: holds no key") as refused:
            key_of(None, "BENCH_ENDPOINT_KEY")
        assert none not in str(refused.value)
    monkeypatch.delenv("BENCH_ENDPOINT_KEY")
    assert key_of(None, "BENCH_ENDPOINT_KEY") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"a" * 100_000])
def test_a_file_that_holds_no_key_is_named_and_not_quoted(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="holds no key") as refused:
        key_in(file)
    assert str(file) in str(refused.value) and "lines" not in str(refused.value)
    with pytest.raises(ValueError, match="No such file"):
        key_in(tmp_path / "absent")


def test_a_text_with_a_piece_of_the_key_is_not_quoted() -> None:
    secrets = Secrets((KEY,))
    for text in (f"wrong key {KEY}", f"wrong key {KEY[:8]}***", f'{{"k": "{KEY[6:]}"}}'):
        assert KEY[:6] not in secrets.clean(text) and KEY[-6:] not in secrets.clean(text)
    assert secrets.clean("out of\nmemory\x1b[31m") == "out of memory [31m"
    assert len(secrets.clean("x" * 5000)) <= 300


def test_each_status_is_fine_or_has_a_code_and_a_remedy() -> None:
    for status in range(100, 600):
        code = of_status(status)
        assert (code is None) is (200 <= status < 300)
        assert code is None or REMEDIES[code]
    assert of_status(429) is Code.THROTTLED and of_status(403) is Code.UNAUTHORIZED
