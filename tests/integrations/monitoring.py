"""A real Prometheus and a real node_exporter on the loopback, for as long as a test needs them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"the test packages have {name}"
    return found


@contextmanager
def running(words: Sequence[str], ready: str) -> Iterator[None]:
    """A server that answers at ``ready`` before the body begins."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: fetch(ready) is not None), f"{words[0]} did not start"
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def fetch(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def wait_for(true: Any, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


@contextmanager
def node_exporter(folder: Path) -> Iterator[int]:
    """Reads ``*.prom`` in the folder; nothing else."""
    port = free_port()
    words = [
        tool("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.textfile",
        f"--collector.textfile.directory={folder}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with running(words, f"http://127.0.0.1:{port}/metrics"):
        yield port


@contextmanager
def prometheus(folder: Path, targets: Sequence[int], rules: str | None = None) -> Iterator[str]:
    """Scrapes the targets once a second; yields its address."""
    port = free_port()
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{t}" for t in targets]}]}],
    }
    if rules is not None:
        (folder / "rules.yml").write_text(rules)
        config["rule_files"] = ["rules.yml"]
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    words = [
        tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with running(words, f"http://127.0.0.1:{port}/-/ready"):
        yield f"http://127.0.0.1:{port}"


def query(address: str, expression: str) -> list[dict[str, Any]]:
    """The instant vector of an expression. A query that Prometheus refuses fails the test."""
    answer = fetch(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    assert answer is not None, f"refused: {expression}"
    return list(json.loads(answer)["data"]["result"])


def alerts(address: str) -> set[str]:
    answer = json.loads(fetch(f"{address}/api/v1/alerts") or "{}")
    found = answer.get("data", {}).get("alerts", ())
    return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}
