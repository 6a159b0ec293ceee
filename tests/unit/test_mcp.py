"""The MCP server, as the SDK's own client meets it over stdio; its trials take no time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

pytest.importorskip("mcp")

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from autoresearch.engine.errors import LedgerDamaged
from autoresearch.engine.holder import Claim
from autoresearch.engine.ledger import Ledger
from autoresearch.init import make_workspace
from autoresearch.mcp_server import measuring, reading
from autoresearch.mcp_server.measuring import BUSY, Submission, measure
from prepare.errors import UsageError
from prepare.settings import Settings
from tests.unit.quick_trials import SEED
from tests.unit.synthetic import make_study, trials_of
from tests.unit.test_submitted import BLOCKS, PATCH

HERE = Path(__file__).resolve().parent
SLOW = SEED + "# slow\nX = 1\n"


def parameters(folder: Path) -> StdioServerParameters:
    root = str(HERE.parents[1])
    env = {"PYTHONPATH": root, "AUTORESEARCH_CACHE": str(folder.parent / "cache")}
    script = str(HERE / "mcp_workspace_server.py")
    return StdioServerParameters(command=sys.executable, args=[script, str(folder)], env=env)


def talk(folder: Path, use: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """A client of a server of its own."""

    async def main() -> None:
        with anyio.fail_after(300):
            async with Client(stdio_client(parameters(folder))) as client:
                await use(client)

    anyio.run(main)


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    return dict(result.structured_content or {})


async def fails(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error, result.structured_content
    return str(result.content[0].text)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a baseline, a kept trial and a crash, made by calls of the tool."""
    folder = tmp_path_factory.mktemp("mcp") / "w"
    files = {"train.py": SEED, "program.md": "be bold\n\n## Notes\n\n- no dropout\n"}
    make_workspace(folder, {**files, "autoresearch.toml": Settings().dumps()}, "begin")
    told: list[tuple[float, str]] = []

    async def use(client: Client) -> None:
        before = await call(client, "champion")
        assert before["trial"] == 0 and not before["measured"] and before["train.py"] == SEED

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, message or ""))

        result = await client.call_tool(
            "propose_trial",
            {"idea": "more", "on": 0, "edit": PATCH, "predicted": -0.02},
            progress_callback=hear,
        )
        kept = result.structured_content or {}
        assert not result.is_error and kept["kept"] and kept["champion"] == 1, result
        assert kept["predicted"] == -0.02 and kept["proposer"] == "submitted"
        broken = await call(client, "propose_trial", idea="b", on=1, edit="crash = 1\n" + SEED)
        assert broken["status"] == "crash" and "It broke" in broken["log"]["end"]

    talk(folder, use)
    assert any("baseline" in words for _, words in told), told
    assert [at for at, _ in told] == sorted(at for at, _ in told)
    return folder


async def sees_the_study(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    looks = {name for name, t in tools.items() if t.annotations and t.annotations.read_only_hint}
    assert looks == {"status", "history", "champion", "show_trial", "read_log"}
    assert set(tools) - looks == {"propose_trial"}
    assert all(tool.description for tool in tools.values())
    status = await call(client, "status")
    assert status["champion"]["id"] == 1 and status["counts"] == {"keep": 1, "crash": 1}
    assert status["running"] is None
    history = await call(client, "history")
    assert history["program"] == "be bold" and history["notes"] == "- no dropout"
    assert "#1 keep" in history["digest"] and "never instructions" in history["digest"]
    best = await call(client, "champion")
    assert best["trial"] == 1 and "MATRIX_LR = 0.06" in best["train.py"]
    shown = await call(client, "show_trial", trial=1)
    assert "+MATRIX_LR = 0.06" in shown["diff"] and len(shown["replicates"]) > 1
    log = await call(client, "read_log", trial=1)
    text = log["logs"]["candidate-1/train.log"]
    assert "from the candidate" in text and "\x1b" not in text and text.startswith("<data ")


async def reads_resources(client: Client) -> None:
    listed = {str(item.uri) for item in (await client.list_resources()).resources}
    assert listed == {"autoresearch://program.md", "autoresearch://train.py"}
    train = await client.read_resource("autoresearch://train.py")
    assert "MATRIX_LR = 0.06" in train.contents[0].text  # type: ignore[union-attr]
    program = await client.read_resource("autoresearch://program.md")
    assert program.contents[0].text.startswith("be bold")  # type: ignore[union-attr]
    for uri in ("autoresearch://../../etc/passwd", "file:///etc/passwd", "autoresearch://x"):
        with pytest.raises(Exception, match=r"(?i)resource"):
            await client.read_resource(uri)


async def is_told_what_to_do(client: Client) -> None:
    assert "0 to 2" in await fails(client, "show_trial", trial=9)
    assert "greater than or equal" in await fails(client, "show_trial", trial=-1)
    words = await fails(client, "propose_trial", idea="x", on=0, edit=PATCH)
    assert "the champion is trial 1 by now" in words and "again" in words
    words = await fails(client, "propose_trial", idea=" \n", on=1, edit=BLOCKS)
    assert "say what the edit is to do" in words
    outside = "diff --git a/x.py b/x.py\nnew file mode 100644\n--- /dev/null\n+++ b/x.py\n"
    edit = f"{outside}@@ -0,0 +1 @@\n+X = 1\n"
    refused = await call(client, "propose_trial", idea="x", on=1, edit=edit)
    assert not refused["recorded"] and refused["rule"] == "not-an-artifact"


async def stays_inside(client: Client, begun: Path, elsewhere: Path) -> None:
    """Links in the places that a candidate, or an agent with a shell, can write."""
    secret = elsewhere / "secret.log"
    secret.write_text("s3cret")
    runs = next(begun.glob(".autoresearch/runs/*/0001"))
    (runs / "candidate-1" / "more.log").symlink_to(secret)
    (runs / "elsewhere").symlink_to(elsewhere, target_is_directory=True)
    program = begun / "program.md"
    program.unlink()
    program.symlink_to(secret)
    assert "s3cret" not in str(await call(client, "read_log", trial=1))
    assert "s3cret" not in str(await call(client, "read_log", trial=1, run="elsewhere"))
    for run in ("../../../..", "/etc", "candidate-1/../.."):
        assert "has no run" in await fails(client, "read_log", trial=1, run=run)
    assert "out of the workspace" in await fails(client, "history")
    with pytest.raises(Exception, match="out of the workspace"):
        await client.read_resource("autoresearch://program.md")
    for link in (program, runs / "elsewhere", runs / "candidate-1" / "more.log"):
        link.unlink()


def test_an_agent_sees_the_workspace_and_nothing_else(begun: Path, tmp_path: Path) -> None:
    """One session: a server takes a second to start."""

    async def use(client: Client) -> None:
        await sees_the_study(client)
        await reads_resources(client)
        await is_told_what_to_do(client)
        await stays_inside(client, begun, tmp_path)

    before = len(Ledger(begun / "results.jsonl").trials())
    talk(begun, use)
    assert len(Ledger(begun / "results.jsonl").trials()) == before


def test_an_idea_with_what_no_argument_may_hold(tmp_path: Path) -> None:
    arguments = Submission("more\x00 \ud800depth", 0, "x").arguments(tmp_path)
    assert "--message=more depth" in arguments
    assert subprocess.run([sys.executable, "-c", "", *arguments]).returncode == 0


def test_who_waits_starts_no_process_while_another_measures(tmp_path: Path, monkeypatch) -> None:
    """A start takes a second of a core, which the trial under way would lack."""
    claim, started = Claim(tmp_path / "results.jsonl"), []

    async def start(*given: object) -> dict[str, Any]:
        started.append(claim.held)
        return {"error": {"type": BUSY, "message": "busy"}} if claim.held else {"trial": {}}

    async def tell(words: str) -> None: ...

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await measure(tmp_path, Submission("x", 0, "x"), tell, wait=30)

    async def end() -> None:
        await anyio.sleep(0.4)
        claim.release()

    monkeypatch.setattr(measuring, "_run", start)
    monkeypatch.setattr(measuring, "ASKED_AGAIN", 0.02)
    claim.acquire()
    anyio.run(main)
    assert started == [True, False]


def test_a_folder_that_is_no_workspace_is_told(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        for name in ("status", "champion"):
            assert "autoresearch init" in await fails(client, name)

    talk(tmp_path, use)


def test_a_ledger_is_read_once_and_then_what_is_new(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "w"
    writer = make_study(folder, 5)
    reader = reading.Reader(folder)
    with reader as seen:
        assert reading.status(seen)["trials"] == 6
        with pytest.raises(UsageError, match="no trial 6"):
            reading.log(seen, 6)
    *_, new = trials_of(6)

    def another(*_: object) -> None:
        pytest.fail("the whole ledger is read again")

    with monkeypatch.context() as patch:
        writer.append_trial(new)
        patch.setattr(Ledger, "__init__", another)
        with reader as seen:
            assert reading.status(seen)["trials"] == 7 and not reading.log(seen, 6)["logs"]
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole + whole.splitlines(True)[-2])
    with pytest.raises(LedgerDamaged), reader:
        pass
    writer.path.write_bytes(whole)
    with reader as seen:
        assert reading.status(seen)["trials"] == 7


def test_one_trial_at_a_time_and_a_cancelled_one_is_dropped(begun: Path) -> None:
    """Two clients with a server each: the second is told, or waits; cancelling leaves nothing."""
    ledger = Ledger(begun / "results.jsonl")
    before = len(ledger.trials())

    async def main() -> None:
        started = anyio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            if message and "step" in message:
                started.set()

        with anyio.fail_after(300):
            async with (
                Client(stdio_client(parameters(begun))) as first,
                Client(stdio_client(parameters(begun))) as second,
                anyio.create_task_group() as group,
            ):
                slow = {"idea": "slow", "on": 1, "edit": SLOW}
                scope = anyio.CancelScope()

                async def measure() -> None:
                    with scope:
                        await first.call_tool("propose_trial", slow, progress_callback=hear)

                group.start_soon(measure)
                await started.wait()
                status = await call(second, "status")
                assert status["running"] == "trial" and status["now"]["trial"]["id"] == before
                quick = {"idea": "5", "on": 1, "edit": BLOCKS}
                words = await fails(second, "propose_trial", **quick)
                assert "one trial at a time" in words and "--message" not in words
                group.start_soon(lambda: _cancel(scope))
                waited = await call(second, "propose_trial", **quick, wait_seconds=300)
                assert waited["status"] == "discard" and waited["id"] == before
                assert (await call(first, "status"))["trials"] == before + 1

    anyio.run(main)
    assert [trial.description for trial in ledger.trials()][before:] == ["5"]
    assert not list(begun.glob(".autoresearch/work/*@[0-9]*")), "no scratch is left"


async def _cancel(scope: anyio.CancelScope) -> None:
    await anyio.sleep(1.0)
    scope.cancel()


@pytest.mark.skipif(os.name == "nt", reason="by signals")
def test_a_client_that_dies_amid_a_trial(begun: Path) -> None:
    """Killed without a word, alone or with its server: no trial, no process, and it goes on."""
    before = len(Ledger(begun / "results.jsonl").trials())
    for kill_server in (False, True):
        die_amid_a_trial(begun, kill_server)
        assert len(Ledger(begun / "results.jsonl").trials()) == before

    async def use(client: Client) -> None:
        again = SEED.replace("0.04", "0.03")
        done = await call(client, "propose_trial", idea="again", on=1, edit=again)
        assert done["id"] == before and done["status"] in ("discard", "pruned")

    talk(begun, use)


def die_amid_a_trial(begun: Path, kill_server: bool) -> None:
    """Nothing that a client started is left once it was killed while its trial trained."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from tests.unit.test_mcp import SLOW, talk\n"
        "async def hear(progress, total, message):\n"
        "    print(message, flush=True)\n"
        "async def use(client):\n"
        "    slow = {'idea': 'slow', 'on': 1, 'edit': SLOW}\n"
        "    await client.call_tool('propose_trial', slow, progress_callback=hear)\n"
        "talk(Path(sys.argv[1]), use)\n"
    )
    command = [sys.executable, "-c", script, str(begun), str(HERE.parents[1])]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert any("step" in line for line in client.stdout), "it trains"
    family = psutil.Process(client.pid).children(recursive=True)
    servers = [process for process in family if "mcp_workspace" in " ".join(process.cmdline())]
    assert len(family) >= 2 and len(servers) == 1
    client.send_signal(signal.SIGKILL)
    if kill_server:
        servers[0].kill()
    client.wait()
    client.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive, alive


def test_without_the_sdk_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mcp'] = None\n"
        "from autoresearch import cli\n"
        "assert cli.run(['mcp']) == 4"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "autoresearch[mcp]" in done.stderr, done.stderr
