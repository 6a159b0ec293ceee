"""Model servers that make real coding agents edit train.py: scripted tool calls, then an end.

Each function gives a reply for ModelServer: it takes a request's path, headers and body, and
answers as the provider's API would.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from tests.agents.model_server import Reply, completion

OLD, NEW = "DEPTH = 8", "DEPTH = 6"
SAID = 'I made the model shallower.\n{"description": "fewer blocks", "predicted": -0.01}'
_ids = itertools.count(1)
Call = tuple[str, dict[str, Any]]  # a tool's name, its arguments


def anthropic(script: Sequence[Call]):
    """The Messages API: these tool calls one by one, then text. Streams when asked to."""

    def reply(path: str, headers: dict[str, str], body: Any) -> Reply:
        if "count_tokens" in path:
            return Reply({"input_tokens": 100})
        if not body.get("tools"):
            return _message([{"type": "text", "text": "ok"}], "end_turn", body)
        done = sum(
            block.get("type") == "tool_result"
            for message in body["messages"]
            if isinstance(message["content"], list)
            for block in message["content"]
        )
        if done < len(script):
            name, given = script[done]
            use = {"type": "tool_use", "id": f"toolu_{next(_ids)}", "name": name, "input": given}
            return _message([use], "tool_use", body)
        return _message([{"type": "text", "text": SAID}], "end_turn", body)

    return reply


def _message(content: list[dict[str, Any]], stop: str, body: dict[str, Any]) -> Reply:
    usage = {"input_tokens": 500, "output_tokens": 20}
    head = {
        "id": f"msg_{next(_ids)}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "fake"),
        "stop_sequence": None,
    }
    if not body.get("stream"):
        return Reply({**head, "content": content, "stop_reason": stop, "usage": usage})
    events: list[tuple[str | None, Any]] = []

    def add(kind: str, **fields: Any) -> None:
        events.append((kind, {"type": kind, **fields}))

    add("message_start", message={**head, "content": [], "stop_reason": None, "usage": usage})
    for index, block in enumerate(content):
        if block["type"] == "text":
            add("content_block_start", index=index, content_block={"type": "text", "text": ""})
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            add("content_block_start", index=index, content_block={**block, "input": {}})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        add("content_block_delta", index=index, delta=delta)
        add("content_block_stop", index=index)
    add("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=usage)
    add("message_stop")
    return Reply(events=events)


def responses(command: str):
    """The Responses API: one shell command through whichever tool is offered, then text."""

    def reply(path: str, headers: dict[str, str], body: Any) -> Reply:
        if not path.endswith("/responses"):
            return Reply({"object": "list", "data": []})
        outputs = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")
        if any(item.get("type") in outputs for item in body["input"]):
            return _response(_text_item())
        return _response(_shell_item(body.get("tools", []), command))

    return reply


def _text_item() -> dict[str, Any]:
    content = [{"type": "output_text", "text": SAID, "annotations": []}]
    return {"type": "message", "role": "assistant", "id": f"msg_{next(_ids)}", "content": content}


def _shell_item(tools: list[dict[str, Any]], command: str) -> dict[str, Any]:
    names = [tool.get("name") for tool in tools]
    call = {"type": "function_call", "id": f"fc_{next(_ids)}", "call_id": f"call_{next(_ids)}"}
    if "exec_command" in names:
        return {**call, "name": "exec_command", "arguments": json.dumps({"cmd": command})}
    if "shell_command" in names:
        return {**call, "name": "shell_command", "arguments": json.dumps({"command": command})}
    words = json.dumps({"command": ["sh", "-c", command]})
    return {**call, "name": "shell", "arguments": words}


def _response(item: dict[str, Any]) -> Reply:
    head = {"id": f"resp_{next(_ids)}", "object": "response", "model": "fake"}
    usage = {
        "input_tokens": 500,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 520,
    }
    done = {**head, "status": "completed", "output": [item], "usage": usage}
    kinds = [
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": done},
    ]
    return Reply(events=[(kind["type"], kind) for kind in kinds])


def chat(script: Sequence[Call]):
    """Chat completions: these tool calls one by one, then text. Streams when asked to."""

    def reply(path: str, headers: dict[str, str], body: Any) -> Reply:
        if not path.endswith("/chat/completions"):
            return Reply({"object": "list", "data": []})
        done = sum(message["role"] == "tool" for message in body["messages"])
        call = None
        if body.get("tools") and done < len(script):
            name, given = script[done]
            function = {"name": name, "arguments": json.dumps(given)}
            call = {"index": 0, "id": f"c{next(_ids)}", "type": "function", "function": function}
        if not body.get("stream"):
            answer = completion(SAID, 500, 20)
            if call:
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
                answer.body["choices"][0].update(message=message, finish_reason="tool_calls")
            return answer
        delta = {"role": "assistant", "content": None if call else SAID}
        if call:
            delta["tool_calls"] = [call]
        head = {"id": "0", "object": "chat.completion.chunk", "created": 0, "model": "fake"}
        usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
        stop = "tool_calls" if call else "stop"
        chunks: list[tuple[str | None, Any]] = [
            (None, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}),
            (None, {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": stop}]}),
            (None, {**head, "choices": [], "usage": usage}),
            (None, "[DONE]"),
        ]
        return Reply(events=chunks)

    return reply


def gemini(script: Sequence[Call]):
    """generateContent: these tool calls one by one, then text."""

    def reply(path: str, headers: dict[str, str], body: Any) -> Reply:
        if "countTokens" in path:
            return Reply({"totalTokens": 100})
        parts = [part for content in body.get("contents", []) for part in content["parts"]]
        done = sum("functionResponse" in part for part in parts)
        part: dict[str, Any] = {"text": SAID}
        schema = body.get("generationConfig", {}).get("responseMimeType") == "application/json"
        if schema:
            part = {"text": json.dumps({"model_choice": "flash", "reasoning": "simple"})}
        elif body.get("tools") and done < len(script):
            name, given = script[done]
            part = {"functionCall": {"name": name, "args": given}}
        candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
        usage = {"promptTokenCount": 500, "candidatesTokenCount": 20, "totalTokenCount": 520}
        answer = {"candidates": [{**candidate, "index": 0}], "usageMetadata": usage}
        if "streamGenerateContent" in path:
            return Reply(events=[(None, answer)])
        return Reply(answer)

    return reply
