"""A model behind an endpoint: blocks, one repair round, deadlines, what it cost."""

import time

import pytest

from autoresearch.engine.proposers.api import ApiProposer
from autoresearch.engine.proposers.base import (
    BUDGET,
    FAILED,
    REFUSED,
    TIMEOUT,
    ProposalRequest,
    ProposerOptions,
    ProposerUnavailable,
)
from autoresearch.engine.proposers.blocks import (
    Block,
    InvalidBlocks,
    apply_blocks,
    parse_blocks,
)
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.trial import Failure
from tests.agents.model_server import ModelServer, Reply, completion

TRAIN = (
    "import x\n\nDEPTH = 8  # blocks\nMAX_DEPTH = 8\nlr = 1\n\n\n"
    "def f():\n    lr = 1\n    return lr\n"
)
BLOCK = "<<<<<<< SEARCH\n{}\n=======\n{}\n>>>>>>> REPLACE\n"
GOOD = (
    "I try fewer blocks.\n\ntrain.py\n"
    + BLOCK.format("DEPTH = 8  # blocks", "DEPTH = 6  # blocks")
    + '\n{"description": "fewer blocks", "predicted": -0.01}'
)


def request_for(tmp_path, seconds=20.0, **more):
    (tmp_path / "train.py").write_bytes(TRAIN.encode())
    return ProposalRequest(
        tmp_path, ("train.py",), "Make it better.", Digest(metric="val_bpb"), seconds, **more
    )


def answering(*replies):
    """A reply function that gives these in turn, the last one for ever."""
    left = list(replies)

    def reply(path, headers, body):
        return left.pop(0) if len(left) > 1 else left[0]

    return reply


def proposer_for(server, **options):
    environ = {"SOME_KEY": "k3y-of-mine"}
    return ApiProposer(
        "m", base_url=f"{server.url}/v1", key_env="SOME_KEY", environ=environ, **options
    )


# -- blocks ---------------------------------------------------------------------------------------


def test_blocks_in_any_dress():
    fenced = f"**train.py**\n```python\n{BLOCK.format('lr = 1', 'lr = 2')}```\n"
    for answer in (GOOD, fenced, fenced.replace("\n", "\r\n"), GOOD.replace("train.py\n", "")):
        assert parse_blocks(answer, ["train.py"])[0].path == "train.py"
    two = "a.py\n" + BLOCK.format("1", "2") + "`b.py`\n" + BLOCK.format("3", "")
    assert parse_blocks(two, ["a.py", "b.py"]) == [
        Block("a.py", "1\n", "2\n"),
        Block("b.py", "3\n", "\n"),
    ]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("no idea", "no block"),
        ("<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "has no line ======="),
        ("<<<<<<< SEARCH\na\n=======\nb\n", "has no line >>>>>>>"),
        ("prepare.py\n" + BLOCK.format("a", "b"), "prepare.py is not a file you may edit"),
        (BLOCK.format("a", "b") * 51, "at most 50"),
    ],
)
def test_faulty_answers_are_told_apart(answer, complaint):
    with pytest.raises(InvalidBlocks, match=complaint):
        parse_blocks(answer, ["train.py"])


def test_a_block_of_several_files_needs_a_name():
    with pytest.raises(InvalidBlocks, match="names no file"):
        parse_blocks(BLOCK.format("a", "b"), ["a.py", "b.py"])


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        ("DEPTH = 9\n", "does not occur"),
        ("depth = 8\n", "does not occur"),
        ("lr = 1\n", ""),  # the other one is indented: another line
        ("    return lr\n", ""),
        ("PTH = 8  # blocks\n", "does not occur"),
        ("\n", "not empty"),
    ],
)
def test_a_match_is_unique_and_whole_lines(search, complaint):
    blocks = [Block("train.py", search, "new\n")]
    if complaint:
        with pytest.raises(InvalidBlocks, match=complaint):
            apply_blocks({"train.py": TRAIN}, blocks)
    else:
        changed = apply_blocks({"train.py": TRAIN}, blocks)["train.py"]
        assert changed.count("new\n") == 1 and search not in changed.splitlines(keepends=True)


def test_blocks_apply_all_or_none():
    texts = {"a": "1\n2\n2\n"}
    with pytest.raises(InvalidBlocks, match=r"block 2.*occurs 2 times"):
        apply_blocks(texts, [Block("a", "1\n", "3\n"), Block("a", "2\n", "4\n")])
    with pytest.raises(InvalidBlocks, match="change nothing"):
        apply_blocks(texts, [Block("a", "1\n", "1\n")])
    assert apply_blocks({"a": "x\r\ny\r\n"}, [Block("a", "y\n", "z\n")]) == {"a": "x\r\nz\r\n"}
    assert apply_blocks({"a": "x\ny"}, [Block("a", "y\n", "z\n")]) == {"a": "x\nz\n"}
    assert apply_blocks({"a": ""}, [Block("a", "", "z\n")]) == {"a": "z\n"}


# -- the endpoint ---------------------------------------------------------------------------------


def test_an_edit(tmp_path):
    with ModelServer(answering(completion(GOOD))) as server:
        proposal = proposer_for(server, prices=(1.0, 10.0)).propose(
            request_for(tmp_path, notes="No MLPs.")
        )
    assert proposal.problem == "" and proposal.description == "fewer blocks"
    assert proposal.predicted == -0.01 and proposal.changed == ("train.py",)
    assert (tmp_path / "train.py").read_bytes() == TRAIN.replace("H = 8  #", "H = 6  #").encode()
    assert (proposal.cost.tokens_in, proposal.cost.tokens_out) == (900, 40)
    assert proposal.cost.known == "estimated"
    assert proposal.cost.dollars == pytest.approx((900 + 400) / 1e6)
    path, body = server.requests[0]
    assert path == "/v1/chat/completions" and body["model"] == "m"
    question = body["messages"][0]["content"]
    assert "Make it better." in question and "MAX_DEPTH" in question and "No MLPs." in question
    assert server.headers[0]["authorization"] == "Bearer k3y-of-mine"
    assert "k3y-of-mine" not in str(proposal)


def test_one_repair_round(tmp_path):
    wrong = "train.py\n" + BLOCK.format("DEPTH = 7", "DEPTH = 6")
    with ModelServer(answering(completion(wrong), completion(GOOD))) as server:
        proposal = proposer_for(server).propose(request_for(tmp_path))
    assert proposal.problem == "" and proposal.details["answers"] == 2
    assert (proposal.cost.tokens_in, proposal.cost.known) == (1800, "unknown")
    told = server.requests[1][1]["messages"]
    assert told[1]["content"] == wrong and "does not occur" in told[2]["content"]
    with ModelServer(answering(completion(wrong))) as server:
        proposal = proposer_for(server).propose(request_for(tmp_path))
    assert proposal.problem_kind == REFUSED and len(server.requests) == 2
    assert "does not occur" in proposal.problem and proposal.cost.tokens_out == 80
    assert (tmp_path / "train.py").read_text() == TRAIN


def test_a_cost_that_the_endpoint_reports(tmp_path):
    with ModelServer(answering(completion(GOOD, cost=0.25))) as server:
        cost = proposer_for(server, prices=(1.0, 1.0)).propose(request_for(tmp_path)).cost
    assert (cost.dollars, cost.known) == (0.25, "native")


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply({"error": {"message": "bad key k3y-of-mine"}}, 401), REFUSED, "401"),
        (Reply({"error": {"message": "too long"}}, 400), REFUSED, "too long"),
        (Reply({"choices": []}), FAILED, "no completion"),
        (Reply(raw=b"<html>"), FAILED, "no completion"),
        (Reply(raw=b"[" * 5_000_000), FAILED, "bytes"),
        (completion(""), REFUSED, "empty"),
        (Reply(delay=30), TIMEOUT, "1 s"),
    ],
)
def test_what_endpoints_do(tmp_path, reply, kind, words):
    with ModelServer(answering(reply)) as server:
        seconds = 1.0 if kind == TIMEOUT else 20.0
        proposal = proposer_for(server).propose(request_for(tmp_path, seconds))
    assert proposal.problem_kind == kind and words in proposal.problem
    assert "k3y-of-mine" not in str(proposal)
    assert (tmp_path / "train.py").read_text() == TRAIN


def test_an_answer_that_never_ends_is_left(tmp_path):
    reply = completion(GOOD)
    reply.trickle = 0.2
    begin = time.monotonic()
    with ModelServer(answering(reply)) as server:
        proposal = proposer_for(server).propose(request_for(tmp_path, seconds=1.0))
        assert proposal.problem_kind == TIMEOUT
        assert time.monotonic() - begin < 10


def test_nobody_listens(tmp_path):
    proposer = ApiProposer("m", base_url="http://127.0.0.1:9/v1", environ={})
    proposal = proposer.propose(request_for(tmp_path, seconds=20.0))
    assert proposal.problem_kind == FAILED


def test_mending(tmp_path):
    failure = Failure("import", "syntax_error", "invalid syntax", "line 3")
    with ModelServer(answering(completion(GOOD))) as server:
        proposer_for(server).propose(request_for(tmp_path, attempt=1, failure=failure))
    question = server.requests[0][1]["messages"][0]["content"]
    assert "syntax_error in import" in question and "invalid syntax\nline 3" in question


def test_options_and_keys(tmp_path):
    with pytest.raises(ProposerOptions):
        ApiProposer("")
    with pytest.raises(ProposerOptions):
        ApiProposer("m", prices=(-1.0, 1.0))
    with pytest.raises(ProposerUnavailable, match="OPENAI_API_KEY"):
        ApiProposer("m", environ={}).propose(request_for(tmp_path))
    broke = ApiProposer("m", environ={}).propose(request_for(tmp_path, dollars_left=0.0))
    assert broke.problem_kind == BUDGET
