"""The real coding agents, as npm and pip install them, against model servers on 127.0.0.1.

They are looked for in AUTORESEARCH_AGENT_BIN (folders, as in PATH), else on PATH:

    npm install --prefix DIR @anthropic-ai/claude-code @openai/codex opencode-ai \\
        @google/gemini-cli @qwen-code/qwen-code && pip install aider-chat
    AUTORESEARCH_AGENT_BIN=DIR/node_modules/.bin pytest -m agents

Each gets a dummy key and an empty home, tries to edit prepare.py too, and edits train.py.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.engine.proposers.agents import AgentProposer, agents_found
from autoresearch.engine.proposers.base import FAILED, ProposalRequest
from autoresearch.engine.proposers.digest import Digest
from tests.agents import fake_models
from tests.agents.model_server import ModelServer, Reply, completion

pytestmark = pytest.mark.agents
PATH = os.environ.get("AUTORESEARCH_AGENT_BIN") or os.environ.get("PATH", "")
FOUND = agents_found({"PATH": PATH})
SCRIPTED = ("claude", "codex", "opencode", "gemini", "qwen", "aider")
SECONDS = 120.0


def edits(folder: Path, keys: tuple[str, str, str], read: str, edit: str) -> list[fake_models.Call]:
    """Read train.py, try to edit prepare.py, edit train.py; with these names of arguments."""
    path, old, new = keys
    train, other = str(folder / "train.py"), str(folder / "prepare.py")
    return [
        (read, {path: train}),
        (read, {path: other}),
        (edit, {path: other, old: "honest = True", new: "honest = False", "instruction": "x"}),
        (edit, {path: train, old: fake_models.OLD, new: fake_models.NEW, "instruction": "x"}),
    ]


def reply_for(agent: str, folder: Path):
    if agent == "claude":
        names = ("file_path", "old_string", "new_string")
        script = edits(folder, names, "Read", "Edit")
        script = [(n, {k: v for k, v in a.items() if k != "instruction"}) for n, a in script]
        return fake_models.anthropic([("Bash", {"command": "touch outside"}), *script])
    if agent == "codex":
        command = "touch ../outside; echo key=$OPENAI_API_KEY=; sed -i 's/H = 8/H = 6/' train.py"
        return fake_models.responses(command)
    if agent == "gemini":
        names = ("file_path", "old_string", "new_string")
        return fake_models.gemini(edits(folder, names, "read_file", "replace"))
    if agent == "aider":
        whole = "train.py\n```\nimport os\nDEPTH = 6\n```\n\n" + fake_models.SAID
        return lambda path, headers, body: completion(whole, 500, 20)
    if agent == "qwen":
        names = ("file_path", "old_string", "new_string")
        script = edits(folder, names, "read_file", "edit")
        del script[2]  # its settings can't tell one file from another
    else:
        script = edits(folder, ("filePath", "oldString", "newString"), "read", "edit")
    script = [(n, {k: v for k, v in a.items() if k != "instruction"}) for n, a in script]
    return fake_models.chat(script)


def options_for(agent: str, url: str, home: Path) -> dict:
    """Where the model is, told as each agent wants it."""
    env = {"PATH": os.pathsep.join([PATH, os.environ.get("PATH", "")]), "OTHER_SECRET": "s3cret"}
    extra: list[str] = []
    model = "fake"
    if agent == "claude":
        env |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "dummy"}
        model = "claude-sonnet-4-5"
    elif agent == "codex":
        env["OPENAI_API_KEY"] = "dummy"
        provider = f'name="fake",base_url="{url}/v1",env_key="OPENAI_API_KEY",wire_api="responses"'
        extra = ["-c", 'model_provider="fake"', "-c", f"model_providers.fake={{{provider}}}"]
    elif agent == "opencode":
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "fake",
            "options": {"baseURL": f"{url}/v1", "apiKey": "dummy"},
            "models": {"fake": {"name": "fake", "limit": {"context": 100_000, "output": 4000}}},
        }
        env["OPENCODE_CONFIG_CONTENT"] = json.dumps({"provider": {"fake": provider}})
        env["OPENCODE_DISABLE_MODELS_FETCH"] = "1"
        model = "fake/fake"
    elif agent == "gemini":
        env |= {"GEMINI_API_KEY": "dummy", "GOOGLE_GEMINI_BASE_URL": url}
        (home / ".gemini").mkdir()
        chosen = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        (home / ".gemini" / "settings.json").write_text(json.dumps(chosen))
        model = "gemini-2.5-flash"
    elif agent == "qwen":
        env |= {"OPENAI_API_KEY": "dummy", "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_MODEL": "fake"}
    elif agent == "aider":
        env |= {"OPENAI_API_KEY": "dummy", "OPENAI_API_BASE": f"{url}/v1"}
        model = "openai/fake"
    return {"environ": env, "extra": extra, "model": model, "home": home, "max_dollars": 0.5}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A committed scratch copy beside an empty home, not under /tmp: codex trusts no home there,
    and its sandbox lets everybody write there."""
    place = "/var/tmp" if Path("/var/tmp").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="autoresearch-", dir=place) as base:
        yield committed(Path(base).resolve())


def committed(base: Path) -> Path:
    folder = base / "scratch"
    folder.mkdir()
    (folder / "train.py").write_text("import os\nDEPTH = 8\n")
    (folder / "prepare.py").write_text("honest = True\n")
    (folder / "program.md").write_text("Make it better.\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    (base / "home").mkdir()
    return folder


def propose(agent: str, scratch: Path, reply) -> tuple:
    if agent not in FOUND:
        pytest.skip(f"no {agent} here")
    home = scratch.parent / "home"
    with ModelServer(reply) as server:
        proposer = AgentProposer(agent, **options_for(agent, server.url, home))
        installed = proposer.check()
        proposal = proposer.propose(
            ProposalRequest(scratch, ("train.py",), "Make it better.", Digest("bpb"), SECONDS)
        )
    print(f"{agent} {installed.version}: {proposal.seconds:.1f} s, {proposal.cost}")
    return proposal, server


@pytest.mark.parametrize("agent", SCRIPTED)
def test_a_real_edit(agent, scratch):
    proposal, server = propose(agent, scratch, reply_for(agent, scratch))
    assert proposal.problem == "", proposal.log_tail
    assert (scratch / "train.py").read_text() == "import os\nDEPTH = 6\n"
    assert (scratch / "prepare.py").read_text() == "honest = True\n"
    assert proposal.changed == ("train.py",), "nothing else is left in the tree"
    assert not (scratch.parent / "outside").exists()
    assert proposal.description == "fewer blocks" and proposal.predicted == -0.01
    assert proposal.cost.tokens_in >= 500 and proposal.cost.tokens_out >= 20
    assert (proposal.cost.known == "native") == (agent == "claude")
    asked = json.dumps([body for _, body in server.requests], default=str)
    assert "Make it better." in asked and "s3cret" not in asked
    assert "key=dummy=" not in asked, "what the model runs sees no key"


@pytest.mark.parametrize("agent", ["claude", "codex", "opencode"])
def test_a_refusing_endpoint(agent, scratch):
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no credit"}}
    proposal, _ = propose(agent, scratch, lambda path, headers, body: Reply(error, 400))
    assert proposal.problem_kind == FAILED and "no credit" in proposal.problem
    assert proposal.changed == ()
