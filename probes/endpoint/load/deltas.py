"""What one event of an OpenAI-compatible stream says. Pure.

A first chunk that names only the role, a chunk of usage without choices and an empty delta carry no content: they are
not the first token. Reasoning and tool calls are content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DONE = b"[DONE]"
_CONTENT = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal")
#: Reasons by which servers end an answer that they could not finish.
_UNFINISHED = ("abort", "error")


class Garbled(ValueError):
    """An event that is no object of this protocol."""


@dataclass(frozen=True, slots=True)
class Delta:
    """``content``: it carries some. ``completion`` and ``prompt``: tokens so far, where the chunk has its usage."""

    content: bool = False
    finished: bool = False
    completion: int | None = None
    prompt: int | None = None
    error: str | None = None


def delta(data: bytes) -> Delta:
    """Read one event. Raises Garbled."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Garbled("an event that is no JSON") from error
    if not isinstance(value, dict):
        raise Garbled("an event that is no object")
    if said := value.get("error"):
        return Delta(error=message(value) or json.dumps(said))
    choices, usage = value.get("choices"), value.get("usage")
    tokens = usage if isinstance(usage, dict) else {}
    if not isinstance(choices, list) and not isinstance(usage, dict):
        if said := message(value):
            return Delta(error=said)
        raise Garbled("an event without choices")
    found = [choice for choice in choices or () if isinstance(choice, dict)]
    if broken := [choice["finish_reason"] for choice in found if choice.get("finish_reason") in _UNFINISHED]:
        return Delta(error=f"finish_reason {broken[0]}")
    return Delta(
        content=any(map(_content, found)),
        finished=any(choice.get("finish_reason") for choice in found),
        completion=_count(tokens.get("completion_tokens")),
        prompt=_count(tokens.get("prompt_tokens")),
    )


def message(value: object) -> str:
    """What a server says went wrong; empty where it says nothing that one knows."""
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("code") or ""
    return error if isinstance(error, str) else ""


def _content(choice: Mapping[str, Any]) -> bool:
    part = choice.get("delta") or choice.get("message") or {}
    named = isinstance(part, dict) and any(part.get(name) for name in _CONTENT)
    return bool(named or choice.get("text"))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None
