"""``python -m bench.fleet.transport.ray_driver ADDRESS``: JSON lines in, JSON lines out; only here is ray imported.

``{}`` asks for the nodes; ``{"scripts": {host: script}, ...}`` runs each script on its node: a line for every host,
then ``{"over": true}``. Run as a program, so that Ray sends `_run` by value: the nodes need nothing of the product.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

_DIED = "Ray says that the node has died"


def _run(task: str, script: str, limit: float, end: str, data: bytes) -> str | None:
    """On the node: what the shell text ``task`` prints for that script; None when it has not come to its end."""
    import os
    import tempfile
    import time

    try:  # the node's environment as Ray was started in it: Ray hides the GPUs, and bounds OpenMP, of its own workers
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            env = dict(word.split(b"=", 1) for word in file.read().split(b"\0") if b"=" in word)
    except OSError:
        env = dict(os.environb)
    with tempfile.TemporaryFile() as feed, tempfile.TemporaryFile() as out:
        feed.write(data)
        feed.seek(0)
        files = [(os.POSIX_SPAWN_DUP2, file.fileno(), fd) for file, fd in ((feed, 0), (out, 1), (out, 2))]
        argv = ["setsid", "--fork", "sh", "-c", task, f"{limit:g}", script]
        os.waitpid(os.posix_spawnp("setsid", argv, env, file_actions=files), 0)
        until = time.monotonic() + limit + 20
        while time.monotonic() < until:
            size = os.fstat(out.fileno()).st_size
            tail = os.pread(out.fileno(), 2000, max(0, size - 2000))
            if tail.endswith(b"\n") and tail.splitlines()[-1].startswith(end.encode()):
                return os.pread(out.fileno(), size, 0).decode("ascii", "replace")
            time.sleep(0.05)
    return None


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """The cluster's table; of several nodes with one name the live one, else the last."""
    found: dict[str, dict[str, Any]] = {}
    for node in sorted(ray.nodes(), key=lambda node: bool(node["Alive"])):
        address = node["NodeManagerAddress"]
        name = node["NodeManagerHostname"] if node.get("NodeName") in (None, "", address) else node["NodeName"]
        if node["Alive"] and name in found and found[name]["alive"]:
            raise ValueError(f"two nodes are called {name}; start them with ray start --node-name")
        found[name] = {"name": name, "id": node["NodeID"], "alive": node["Alive"], "address": address,
                       "works": node["Resources"].get("CPU", 0) > 0}  # fmt: skip
    return sorted(found.values(), key=lambda node: str(node["name"]))


def _each(ray: Any, request: dict[str, Any], answer: Any) -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["name"]: node for node in _nodes(ray)}
    run = ray.remote(num_cpus=0, max_retries=0)(_run)
    data = ray.put(Path(request["file"]).read_bytes() if request["file"] else b"")
    pending: dict[Any, str] = {}
    for host, script in request["scripts"].items():
        if host in nodes and nodes[host]["alive"]:
            where = NodeAffinitySchedulingStrategy(nodes[host]["id"], soft=False)
            words = (request["task"], script, request["limit"], request["end"], data)
            pending[run.options(scheduling_strategy=where).remote(*words)] = host
        else:
            answer(host=host, kind="unreachable", detail=_DIED if host in nodes else "Ray knows no node of that name")
    until = time.monotonic() + request["seconds"]
    while pending and time.monotonic() < until:
        done, _ = ray.wait(list(pending), num_returns=1, timeout=1.0)
        for ref in done:
            answer(host=pending.pop(ref), **_outcome(ray, ref))
        if not done:  # of a node that is silent Ray knows long before its task fails: TCP waits for minutes
            alive = {node["id"] for node in _nodes(ray) if node["alive"]}
            for ref in [ref for ref, host in pending.items() if nodes[host]["id"] not in alive]:
                answer(host=pending.pop(ref), kind="unreachable", detail=_DIED)
                ray.cancel(ref, force=True)
    for ref, host in pending.items():
        ray.cancel(ref, force=True)
        answer(host=host, kind="controller-timeout", detail="the controller's limit was reached")


def _outcome(ray: Any, ref: Any) -> dict[str, str]:
    """What became of a task: its output, or why there is none."""
    try:
        out = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return {"kind": "not-run", "detail": str(error.cause)}
    except ray.exceptions.RayError as error:  # NodeDiedError, WorkerCrashedError, TaskUnschedulableError, ...
        return {"kind": "unreachable", "detail": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    if out is None:
        return {"kind": "controller-timeout", "detail": "its script did not end at the limit"}
    return {"out": out}


def _serve(address: str, answers: TextIO) -> None:
    def answer(**words: Any) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    ray: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if ray is None:
                import ray as module

                module.init(address, log_to_driver=False, logging_level="ERROR")
                ray = module
            if request:
                _each(ray, request, answer)
            else:
                answer(nodes=_nodes(ray))
        except ImportError as error:
            answer(error=f"{error}; pip install 'aiready-bench[ray]', of the version that the cluster has")
        except Exception as error:  # noqa: BLE001 - whatever Ray raises goes to the controller, in one line
            answer(error=f"{type(error).__name__}: {error}")
        answer(over=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # what Ray prints is no answer
        _serve(sys.argv[1], out)
