"""A model behind any OpenAI-compatible endpoint as a proposer: Ollama, LM Studio, vLLM, a service.

    proposer = ApiProposer(model="qwen3-coder", base_url="http://127.0.0.1:11434/v1")

It gets the human's program, the artifacts and the digest in one message and answers with
search/replace blocks (blocks.py). An answer whose blocks can't be applied gets one repair round.
The key is read from an environment variable by name (`key_env`); a local server needs none.

Tokens are those the endpoint reports. Dollars: `prices` (per million tokens in and out) makes an
estimate; some endpoints report a cost themselves (`usage.cost`); otherwise they are unknown.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.engine.proposers.base import (
    BUDGET,
    CANCELLED,
    FAILED,
    REFUSED,
    TIMEOUT,
    Proposal,
    ProposalRequest,
    ProposerOptions,
    ProposerUnavailable,
    artifact_files,
    cost_of,
)
from autoresearch.engine.proposers.blocks import RULES, InvalidBlocks, apply_blocks, parse_blocks
from autoresearch.engine.proposers.prompt import instructions
from autoresearch.engine.proposers.text import last_lines, number, one_line, said
from autoresearch.engine.trial import Cost, Trial

if TYPE_CHECKING:
    import openai

MOST_BYTES = 4_000_000  # of one answer; more is not an edit
TASK = (
    "Propose one experiment: one idea that may improve {metric} ({better} is better), as an edit "
    "of {artifacts}. Keep it small enough that its effect can be told. A harness applies, measures "
    "and keeps or drops it; where the program below speaks of that, it is done for you.\n\n" + RULES
)


class _CallFailed(Exception):
    """A call without an answer: `kind` of problem, and what was said."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class _Answer:
    text: str
    tokens_in: int | None
    tokens_out: int | None
    dollars: float | None


class ApiProposer:
    """Asks `model` at `base_url` (the client's default unless given).

    `prices` are dollars per million tokens in and out; `repairs` how many rounds for blocks that
    can't be applied; `temperature` is left to the endpoint unless given. Raises ProposerOptions.
    """

    name = "api"
    reentrant = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_env: str = "OPENAI_API_KEY",
        prices: tuple[float, float] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        repairs: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if not model:
            raise ProposerOptions("proposer api: no model is named", "give model=NAME")
        if prices is not None and not _are_prices(prices):
            raise ProposerOptions(
                f"proposer api: prices are two numbers from 0 up, not {prices!r}",
                "prices=[0.5,1.5]: dollars per million tokens in, and out",
            )
        if base_url is not None and not str(base_url).startswith(("http://", "https://")):
            raise ProposerOptions(
                f"proposer api: base_url is an address, not {base_url!r}",
                "for example base_url=http://127.0.0.1:11434/v1",
            )
        self._model = str(model)
        self._base_url = base_url
        self._key_env = key_env
        self._prices = prices
        self._settings: dict[str, Any] = {}
        if temperature is not None:
            self._settings["temperature"] = temperature
        if max_tokens is not None:
            self._settings["max_tokens"] = max_tokens
        self._repairs = repairs
        self._environ = environ

    def check(self) -> None:
        """Raises ProposerUnavailable without the client, or without a key where one is needed."""
        self._client().close()

    def propose(self, request: ProposalRequest) -> Proposal:
        """One answer, repaired once if need be. Raises ProposerUnavailable without the client."""
        begin = time.monotonic()
        if request.dollars_left is not None and request.dollars_left <= 0:
            return Proposal("", problem="no money is left for a call", problem_kind=BUDGET)
        client = self._client()
        names = artifact_files(request.folder, request.artifacts)
        texts = {
            name: (request.folder / name).read_bytes().decode("utf-8", "replace") for name in names
        }
        messages = [{"role": "user", "content": _question(request, texts)}]
        answers: list[_Answer] = []
        try:
            with client:
                changed, answer = self._rounds(client, request, begin, messages, texts, answers)
        except _CallFailed as error:
            return self._proposal(begin, answers, problem=str(error), kind=error.kind)
        except InvalidBlocks as error:
            problem = f"no valid edit after {len(answers)} answers: {error}"
            return self._proposal(begin, answers, problem=problem, kind=REFUSED)
        for name, text in changed.items():
            (request.folder / name).write_bytes(text.encode("utf-8"))
        stated = said(answer.text)
        return self._proposal(
            begin,
            answers,
            description=one_line(str(stated.get("description") or "an edit, not described"), 300),
            predicted=number(stated.get("predicted")),
            changed=tuple(sorted(changed)),
        )

    def observe(self, trial: Trial) -> None:
        """Nothing to do: every call gets the digest."""

    # -- the conversation --------------------------------------------------------------------------

    def _rounds(
        self,
        client: openai.OpenAI,
        request: ProposalRequest,
        begin: float,
        messages: list[dict[str, str]],
        texts: Mapping[str, str],
        answers: list[_Answer],
    ) -> tuple[dict[str, str], _Answer]:
        """The files' new texts. Raises InvalidBlocks after the last round, and _CallFailed."""
        for left in range(self._repairs, -1, -1):
            answer = self._ask(client, messages, request, begin)
            answers.append(answer)
            try:
                return apply_blocks(texts, parse_blocks(answer.text, list(texts))), answer
            except InvalidBlocks as error:
                if not left or self._spent(answers, request):
                    raise
                messages += [
                    {"role": "assistant", "content": answer.text},
                    {
                        "role": "user",
                        "content": f"The edit can't be applied; nothing was changed:\n{error}"
                        f"\n\nAnswer again with all blocks, and the line of JSON.\n\n{RULES}",
                    },
                ]
        raise InvalidBlocks("no round was allowed")

    def _ask(
        self,
        client: openai.OpenAI,
        messages: list[dict[str, str]],
        request: ProposalRequest,
        begin: float,
    ) -> _Answer:
        """One call in a thread of its own, left when the deadline passes: the client's own
        timeouts start anew with every byte. Raises _CallFailed."""
        box: list[_Answer | _CallFailed] = []

        def call() -> None:
            try:
                box.append(self._call(client, messages, max(1.0, request.seconds)))
            except _CallFailed as error:
                box.append(error)
            except Exception as error:  # noqa: BLE001 - the transport's, which differ by version
                box.append(_CallFailed(FAILED, f"{type(error).__name__}: {one_line(str(error))}"))

        worker = threading.Thread(target=call, daemon=True)
        worker.start()
        while worker.is_alive():
            worker.join(timeout=0.1)
            if time.monotonic() - begin > request.seconds:
                raise _CallFailed(TIMEOUT, f"no answer after {request.seconds:.0f} s")
            if request.cancelled is not None and request.cancelled():
                raise _CallFailed(CANCELLED, "stopped on request")
        if not box:
            raise _CallFailed(FAILED, "the call ended without an answer")
        if isinstance(box[0], _CallFailed):
            raise box[0]
        return box[0]

    def _call(
        self, client: openai.OpenAI, messages: list[dict[str, str]], seconds: float
    ) -> _Answer:
        import openai

        try:
            with client.chat.completions.with_streaming_response.create(
                model=self._model,
                messages=messages,  # type: ignore[arg-type]
                timeout=seconds,
                **self._settings,
            ) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise _CallFailed(FAILED, f"an answer of more than {MOST_BYTES} bytes")
        except openai.APITimeoutError as error:
            raise _CallFailed(TIMEOUT, f"no answer after {seconds:.0f} s") from error
        except openai.APIStatusError as error:
            # Some endpoints repeat the key that they refuse.
            what = one_line(error.message.replace(client.api_key, "[key]"), 300)
            raise _CallFailed(
                REFUSED, f"the endpoint answered {error.status_code}: {what}"
            ) from error
        except openai.OpenAIError as error:
            cause = f": {error.__cause__}" if error.__cause__ else ""
            raise _CallFailed(FAILED, one_line(f"{error}{cause}", 300)) from error
        return _read(bytes(body))

    def _client(self) -> openai.OpenAI:
        try:
            import openai
        except ImportError as error:
            raise ProposerUnavailable(
                "proposer api: the package openai is missing", "pip install 'autoresearch[api]'"
            ) from error
        source = os.environ if self._environ is None else self._environ
        key = source.get(self._key_env)
        if not key and self._base_url is None:
            raise ProposerUnavailable(
                f"proposer api: the environment has no {self._key_env}",
                "set it, or name a local server with base_url",
            )
        return openai.OpenAI(api_key=key or "none", base_url=self._base_url, max_retries=2)

    # -- accounting --------------------------------------------------------------------------------

    def _cost(self, answers: list[_Answer]) -> Cost:
        """The sum over all answers; what one of them leaves out makes the sum unknown."""

        def total(values: list[Any]) -> Any:
            return sum(values) if values and None not in values else None

        return cost_of(
            total([answer.dollars for answer in answers]),
            total([answer.tokens_in for answer in answers]),
            total([answer.tokens_out for answer in answers]),
            self._prices,
        )

    def _spent(self, answers: list[_Answer], request: ProposalRequest) -> bool:
        dollars = self._cost(answers).dollars
        left = request.dollars_left
        return left is not None and dollars is not None and dollars >= left

    def _proposal(
        self,
        begin: float,
        answers: list[_Answer],
        *,
        description: str = "",
        predicted: float | None = None,
        changed: tuple[str, ...] = (),
        problem: str = "",
        kind: str = "",
    ) -> Proposal:
        return Proposal(
            description=description,
            predicted=predicted,
            cost=self._cost(answers),
            log_tail=last_lines(answers[-1].text, 50, 8_000) if answers else "",
            problem=one_line(problem, 400),
            problem_kind=kind,
            seconds=time.monotonic() - begin,
            changed=changed,
            details={"answers": len(answers), "model": self._model},
        )


def _are_prices(value: Any) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(number(item) is not None and item >= 0 for item in value)


def _question(request: ProposalRequest, texts: Mapping[str, str]) -> str:
    files = [f"# {name}, as it is now\n\n```\n{text}\n```" for name, text in texts.items()]
    return instructions(request, TASK) + "\n" + "\n\n".join(files) + "\n"


def _read(body: bytes) -> _Answer:
    """The answer and its usage out of a completion. Raises _CallFailed."""
    try:
        data = json.loads(body)
        text = data["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        shown = one_line(body[:200].decode("utf-8", "replace"))
        raise _CallFailed(FAILED, f"the endpoint's answer is no completion: {shown}") from error
    if not isinstance(text, str) or not text.strip():
        raise _CallFailed(REFUSED, "the model's answer is empty")
    usage = data.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}

    def count(name: str) -> int | None:
        value = number(usage.get(name))
        return int(value) if value is not None and value >= 0 else None

    cost = number(usage.get("cost"))
    return _Answer(text, count("prompt_tokens"), count("completion_tokens"), cost)
