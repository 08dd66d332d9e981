"""The kernel's UDP counters, which tell a full socket from a lossy network."""

from __future__ import annotations

from pathlib import Path

_FILES = (("/proc/net/snmp", "Udp"), ("/proc/net/snmp6", "Udp6"))


def udp_counters() -> dict[str, int]:
    """IPv4 and IPv6 UDP counters of this network namespace, ``RcvbufErrors`` among them; empty where there are none."""
    found: dict[str, int] = {}
    for path, prefix in _FILES:
        try:
            text = Path(path).read_text(encoding="ascii")
        except OSError:
            continue
        for name, value in parse(text, prefix).items():
            found[name] = found.get(name, 0) + value
    return found


def parse(text: str, prefix: str) -> dict[str, int]:
    """``/proc/net/snmp`` has a line of names and a line of values; ``/proc/net/snmp6`` a name and a value a line."""
    lines = [line.split() for line in text.splitlines()]
    rows = [words[1:] for words in lines if words and words[0] == f"{prefix}:"]
    if len(rows) == 2:
        return {name: int(value) for name, value in zip(*rows, strict=False) if value.lstrip("-").isdigit()}
    return {w[0].removeprefix(prefix): int(w[1]) for w in lines if len(w) == 2 and w[0].startswith(prefix)}
