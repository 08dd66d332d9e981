"""What servers are known to send, byte by byte, from a server that says what it is told: each its outcome and count."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

import pytest

from bench.model import Code
from probes.common.http import Broken, address
from probes.endpoint.load.client import Client
from probes.endpoint.load.clock import StampingSelector
from probes.endpoint.load.dialect import opened
from probes.endpoint.plan import Settings, apis, completions, url
from probes.endpoint.records import Answer, Opened

KEY = "sk-9vQ2mZrT7LwX4bNd"
Handler = Callable[[str, bytes], bytes]


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(**fields: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def plain(status: int, body: object = None, more: str = "") -> bytes:
    data = json.dumps(body).encode() if body is not None else b""
    kind = "Content-Type: application/json\r\n"
    return f"HTTP/1.1 {status} X\r\n{kind}Content-Length: {len(data)}\r\n{more}\r\n".encode() + data


def chunked(*parts: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ODD = 'data: {"choices":[{"text":"naïve"}]}\n\n'.encode()


def ending(reason: str) -> bytes:
    return event({"choices": [{"delta": {}, "finish_reason": reason}]})


STOP, DONE = ending("stop"), b"data: [DONE]\n\n"
WORD = delta(content="word")
END = STOP + DONE


async def _with(handler: Handler, use: Callable[[Client, str], object], key: str | None = KEY) -> object:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            writer.write(handler(head.split(b" ")[1].decode(), body))
            await writer.drain()
        finally:
            writer.close()

    stamps = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(address(base), key, stamps, 5.0) as client:
            return await use(client, base)  # type: ignore[misc]


def served(handler: Handler, use: Callable[[Client, str], object]) -> object:
    loop = asyncio.SelectorEventLoop(StampingSelector())
    try:
        return loop.run_until_complete(_with(handler, use))
    finally:
        loop.close()


def answer(said: bytes) -> Answer:
    """What becomes of one request for eight tokens that is answered so."""

    async def use(client: Client, base: str) -> Answer:
        now = asyncio.get_running_loop().time()
        return await client.ask(f"{base}/v1/chat/completions", b"{}", "held", now, 0.0, 8)

    found = served(lambda path, body: said, use)
    assert isinstance(found, Answer)
    return found


@pytest.mark.parametrize(
    ("said", "chunks", "tokens", "counted"),
    [
        (STREAM + delta(role="assistant", content="") + delta(reasoning_content="hm") + WORD + END, 2, 2, "chunks"),
        (STREAM + delta(reasoning="hm") + END, 1, 1, "chunks"),
        (STREAM + delta(role="assistant", content=None) + delta(tool_calls=[{"function": {"name": "f"}}]) + END, 1, 1,
         "chunks"),
        (STREAM + delta(function_call={"name": "f"}) + END, 1, 1, "chunks"),
        (STREAM + WORD + STOP + event({"choices": [], "usage": {"completion_tokens": 3}}) + DONE, 1, 3, "usage"),
        (STREAM + event({"choices": [{"delta": {"content": "a"}}], "usage": None}) + END, 1, 1, "chunks"),
        (STREAM + event({"choices": [], "prompt_filter_results": []}) + WORD + END, 1, 1, "chunks"),
        (STREAM + WORD + STOP, 1, 1, "chunks"),
        (STREAM + WORD + b"data: [DONE]", 1, 1, "chunks"),
        (STREAM + (WORD + END).replace(b"data: ", b"data:").replace(b"\n", b"\r\n"), 1, 1, "chunks"),
        (STREAM + b": ping\n\n" + WORD + b":\n\nevent: x\nid: 1\nretry: 5\n" + WORD + END, 2, 2, "chunks"),
        (STREAM + b'data: {"choices":\ndata: [{"delta": {"content": "a"}}]}\n\n' + END, 1, 1, "chunks"),
        (chunked(*(bytes([byte]) for byte in ODD + END)), 1, 1, "chunks"),
        ((STREAM + WORD + END).replace(b"HTTP/1.1", b"HTTP/1.0"), 1, 1, "chunks"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM + WORD + END, 1, 1, "chunks"),
    ],
)  # fmt: skip
def test_what_is_an_answer(said: bytes, chunks: int, tokens: int, counted: str) -> None:
    found = answer(said)
    assert (found.code, len(found.chunks), found.token_count, found.counted) == (None, chunks, tokens, counted)


HUGE = STREAM + WORD + event({"choices": [], "usage": {"completion_tokens": 2_000_000_000}}) + END
DATES = "Date: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2026 07:28:30 GMT\r\n"
GZIP = STREAM.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")


@pytest.mark.parametrize(
    ("said", "code", "detail"),
    [
        (STREAM + WORD, Code.TORN, "without a reason"),
        (STREAM + WORD + ending(""), Code.TORN, "without a reason"),
        (STREAM + WORD + ending("abort") + DONE, Code.SERVER_ERROR, "abort"),
        (STREAM + WORD + b'event: error\ndata: {"message": "out of memory"}\n\n', Code.SERVER_ERROR, "out of memory"),
        (STREAM + event({"object": "error", "message": "too long", "code": 400}), Code.SERVER_ERROR, "too long"),
        (HUGE, Code.GARBLED, "8 were asked for"),
        (plain(200, {"choices": [{"message": {"content": "a"}}]}), Code.WRONG_CONTENT, "application/json"),
        (plain(200, {"error": {"message": "overloaded"}}), Code.WRONG_CONTENT, "overloaded"),
        (GZIP + b"\x1f\x8b", Code.WRONG_CONTENT, "gzip"),
        (plain(429, None, "Retry-After: 7\r\n"), Code.THROTTLED, "wait 7 s"),
        (plain(429, {"error": {"message": "slow down"}}, DATES), Code.THROTTLED, "slow down; it asks to wait 30 s"),
        (plain(429, None, "Retry-After: \u00b2\r\n"), Code.THROTTLED, ""),
        (plain(307, None, "Location: /v2/chat\r\n"), Code.REDIRECTED, "to /v2/chat"),
        (plain(302, None, "Location: https://me:pass-word@else.where/x?token=1\r\n"), Code.REDIRECTED,
         "to https://else.where/x"),
        (plain(500, [[[[]]]]), Code.SERVER_ERROR, ""),
        (b"HTTP/1.1 500 X\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000, Code.SERVER_ERROR, ""),
        (STREAM + b"data: " + b"[" * 100_000 + b"\n\n", Code.GARBLED, "no JSON"),
    ],
)  # fmt: skip
def test_what_is_none(said: bytes, code: Code, detail: str) -> None:
    found = answer(said)
    assert found.code == code and detail in found.detail, found.detail
    assert "pass-word" not in found.detail and found.token_count <= 100


# --- how it is opened


def opening(handler: Handler, **settings: object) -> tuple[Opened | Broken, list[str]]:
    """How the server is spoken to, or why it is not; and the paths that it was asked for."""
    paths = list[str]()

    def noted(path: str, body: bytes) -> bytes:
        paths.append(path)
        return handler(path, body)

    async def use(client: Client, base: str) -> Opened | Broken:
        told = Settings(url=base, seconds=5.0, enough=1, prompt_tokens=128, output_tokens=8, **settings)  # type: ignore[arg-type]
        try:
            return (await opened(client, told))[1]
        except Broken as broken:
            return broken

    found = served(noted, use)
    assert isinstance(found, Opened | Broken)
    return found, paths


def serving(models: bytes, completion: bytes = STREAM + WORD + END) -> Handler:
    return lambda path, body: models if path.endswith("/models") else completion


def listed(*names: str) -> bytes:
    return plain(200, {"data": [{"id": name} for name in names]})


def test_the_first_of_several_models_is_taken() -> None:
    found, _ = opening(serving(listed("first", "second")))
    assert isinstance(found, Opened) and (found.model, found.api, found.place) == ("first", "chat", "node")


def test_a_server_that_loads_its_model_is_waited_for_before_it_lists_any() -> None:
    left = [plain(503, {"error": {"message": "Loading model"}})]
    found, paths = opening(lambda path, body: left.pop() if left else serving(listed("m"))(path, body))
    assert isinstance(found, Opened) and [path for path in paths if path.endswith("/models")] == ["/v1/models"] * 2


@pytest.mark.parametrize(
    ("models", "code"),
    [
        (plain(301, None, "Location: https://127.0.0.1/v1/models\r\n"), Code.REDIRECTED),
        (plain(403), Code.UNAUTHORIZED),
        (plain(404), Code.MODEL_UNKNOWN),
        (listed(), Code.MODEL_UNKNOWN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000, Code.MODEL_UNKNOWN),
        (plain(200, {"data": [None, {"id": 3}, {"no": "id"}]}), Code.MODEL_UNKNOWN),
    ],
)
def test_a_list_of_models_that_is_none(models: bytes, code: Code) -> None:
    found, _ = opening(serving(models))
    assert isinstance(found, Broken) and found.code == code


@pytest.mark.parametrize("models", [plain(403), plain(302, None, "Location: /login\r\n"), plain(200, "x" * (2 << 20))])
def test_a_model_that_was_named_needs_no_list(models: bytes) -> None:
    found, paths = opening(serving(models), model="mine")
    assert isinstance(found, Opened) and (found.model, paths) == ("mine", ["/v1/chat/completions"])


NO_TEMPLATE = plain(400, {"error": {"message": "default chat template is no longer allowed"}})


@pytest.mark.parametrize(
    "chat",
    [plain(404, {"detail": "Not Found"}), plain(405), plain(501), NO_TEMPLATE,
     plain(404, {"error": {"message": "The model does not support Chat Completions API"}})],
)  # fmt: skip
def test_a_server_without_chat_is_asked_for_completions_whatever_it_calls_that(chat: bytes) -> None:
    def handler(path: str, body: bytes) -> bytes:
        return chat if path.endswith("/chat/completions") else serving(listed("base"))(path, body)

    found, _ = opening(handler)
    assert isinstance(found, Opened) and (found.api, found.model) == ("completions", "base")


@pytest.mark.parametrize(
    ("named", "api"), [("", "chat"), ("/v1/chat/completions", "chat"), ("/v1/completions", "completions")]
)
def test_the_path_that_was_named_is_tried_first(named: str, api: str) -> None:
    assert apis(address(f"http://h{named}"))[0] == api and len(set(apis(address(f"http://h{named}")))) == 2


def test_where_neither_is_taken_the_one_that_says_more_is_told() -> None:
    none = plain(404, {"detail": "Not Found"})
    for chat, completion, said in (
        (NO_TEMPLATE, none, "template"),
        (none, NO_TEMPLATE, "template"),
        (none, none, "Not"),
    ):
        answers = {"/v1/models": listed("m"), "/v1/chat/completions": chat, "/v1/completions": completion}
        found, _ = opening(lambda path, body, answers=answers: answers[path])  # type: ignore[misc]
        assert isinstance(found, Broken) and said in found.detail


def test_a_key_among_the_models_is_not_told() -> None:
    unknown = plain(404, {"error": {"message": "no such model"}})
    for given in ({}, {"model": "mine"}):
        found, _ = opening(serving(listed(f"model-{KEY}"), unknown), **given)
        assert isinstance(found, Broken) and found.code == Code.MODEL_UNKNOWN
        assert not any(KEY[at : at + 6] in found.detail for at in range(len(KEY) - 5))
    found, _ = opening(serving(listed(f"model-{KEY}")))
    assert isinstance(found, Opened) and KEY not in found.model


@pytest.mark.parametrize(("said", "ratio"), [(64, 2.0), (192, 128 / 192), (1, None), (0, None), (1280, 0.1)])
def test_prompts_are_scaled_by_a_count_that_can_be_one(said: int, ratio: float | None) -> None:
    """A server that counts one token of 128 words counts something else: its prompts must not grow to 16,384 words."""
    usage = event({"choices": [], "usage": {"prompt_tokens": said, "completion_tokens": 1}})
    found, _ = opening(serving(listed("m"), STREAM + WORD + usage + END))
    assert isinstance(found, Opened) and found.words_a_token == ratio


@pytest.mark.parametrize(
    ("base", "chat"),
    [
        ("http://h/openai/v1", "http://h/openai/v1/chat/completions"),
        ("http://h/openai/v1/", "http://h/openai/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/chat/completions"),
        ("https://h/deployments/d/chat/completions?api-version=1", "https://h/deployments/d/chat/completions?api-version=1"),
        ("https://h/v1beta/openai/chat/completions", "https://h/v1beta/openai/chat/completions"),
        ("http://h/vision2", "http://h/vision2/v1/chat/completions"),
    ],
)  # fmt: skip
def test_what_was_named_is_asked(base: str, chat: str) -> None:
    assert completions(address(base), "chat") == chat
    assert url(address(base), "/models") == chat.replace("/chat/completions", "/models")
