"""Search over constants: edits literals in place, stays valid, learns, resumes."""

import dataclasses
import math
import random
from pathlib import Path

import pytest

from autoresearch.engine.constants import UnknownConstant, apply_constants, constants_of
from autoresearch.engine.proposers import samplers
from autoresearch.engine.proposers.base import (
    EXHAUSTED,
    FAILED,
    REFUSED,
    ProposalRequest,
    ProposerOptions,
)
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.search import SearchProposer, describe, parse_changes
from autoresearch.engine.proposers.space import Choices, Fixed, Range, build_space
from autoresearch.engine.trial import Trial, TrialStatus

SOURCE = '''"""A module — with a dash before the code."""
import os

DEPTH = 8  # blocks
TOTAL_BATCH_SIZE = 4096  # tokens per step
DEVICE_BATCH_SIZE = 16  # rows
MATRIX_LR = 0.04  # Muon
WARMUP_RATIO = 0.0
PATTERN: str = "SSSL"  # spans
BETAS = (
    0.8,  # first
    0.95,
)
TIED = True
WIDTH = DEPTH * 64
'''
HINTS = {
    "WARMUP_RATIO": Range(0.0, 0.3),
    "PATTERN": Choices(("SSSL", "SL", "L")),
    "TIED": Fixed(),
    "BETAS": Choices(((0.8, 0.95), (0.9, 0.95))),
}


def batch_divides(constants):
    tokens = constants["DEVICE_BATCH_SIZE"] * 64
    return f"no multiple of {tokens}" if constants["TOTAL_BATCH_SIZE"] % tokens else None


def request_for(folder: Path, source: str = SOURCE, **more) -> ProposalRequest:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_bytes(source.encode())
    return ProposalRequest(folder, ("train.py",), "", Digest(), 10.0, **more)


def trial(number, description, status=TrialStatus.DISCARD, delta=0.01) -> Trial:
    return Trial(number, 0, status, "", description=description, delta=delta, proposer="search")


def test_constants_keep_their_comments():
    source = apply_constants(SOURCE, {"DEPTH": 4, "BETAS": (0.9, 0.95), "PATTERN": 'a"\\\n'})
    assert "DEPTH = 4  # blocks\n" in source
    assert constants_of(source)["PATTERN"] == 'a"\\\n'
    assert constants_of(source)["BETAS"] == (0.9, 0.95)
    assert "WIDTH" not in constants_of(source)
    with pytest.raises(UnknownConstant) as error:
        apply_constants(SOURCE, {"DEPHT": 4})
    assert "DEPTH" in error.value.hint


def test_windows_line_ends_survive():
    source = SOURCE.replace("\n", "\r\n")
    assert apply_constants(source, {"DEPTH": 9}) == source.replace("DEPTH = 8", "DEPTH = 9")


def test_ranges_by_scale_and_by_hint():
    space = build_space(constants_of(SOURCE), HINTS)
    assert space["MATRIX_LR"].log and (space["MATRIX_LR"].low, space["MATRIX_LR"].high) == (
        0.01,
        0.16,
    )
    assert space["TOTAL_BATCH_SIZE"].kind == "power"
    assert space["TOTAL_BATCH_SIZE"].around(4096) == {"low": 10, "high": 14}
    assert space["DEPTH"].kind == "int" and space["DEPTH"].around(8) == {"low": 5, "high": 11}
    assert not space["WARMUP_RATIO"].log
    assert "TIED" not in space
    assert "WARMUP_RATIO" not in build_space(constants_of(SOURCE))  # zero has no scale
    assert "BETAS" not in build_space(constants_of(SOURCE))


@pytest.mark.parametrize("bad", [(2, 1), (float("nan"), 1)])
def test_a_range_must_be_one(bad):
    with pytest.raises(ValueError):
        Range(*bad)


def test_changes_one_to_three_near_the_champion(tmp_path):
    before = constants_of(SOURCE)
    for seed in range(25):
        proposer = SearchProposer(HINTS, batch_divides, seed=seed)
        request = request_for(tmp_path / "w")
        proposal = proposer.propose(request)
        assert proposal.problem == "" and proposal.changed == ("train.py",)
        assert proposal.cost.dollars == 0.0
        text = (request.folder / "train.py").read_text(encoding="utf-8")
        after = constants_of(text)
        changed = {name: after[name] for name in after if after[name] != before[name]}
        assert 1 <= len(changed) <= 3
        assert changed == proposal.details["changes"]
        assert batch_divides(after) is None
        assert 0.01 <= after["MATRIX_LR"] <= 0.16 and 5 <= after["DEPTH"] <= 11
        assert after["TOTAL_BATCH_SIZE"] & (after["TOTAL_BATCH_SIZE"] - 1) == 0
        assert text.count("#") == SOURCE.count("#") - ("BETAS" in changed), (
            "comments stay, but those inside a replaced literal"
        )


def test_a_description_says_it_all():
    changes = (("DEPTH", 8, 6), ("PATTERN", "S; DEPTH: 1", "L"), ("BETAS", (0.8,), (0.9, 1e-05)))
    assert parse_changes(describe(changes[:1] + changes[2:])) == changes[:1] + changes[2:]
    assert parse_changes("a deeper model; DEPTH: 8 -> 6") == ()
    assert parse_changes("DEPTH: 8 -> os.getcwd()") == ()


def test_resumes_from_the_ledger_and_is_deterministic(tmp_path):
    history = []
    one = SearchProposer(HINTS, batch_divides, seed=3)
    for number in range(1, 9):
        proposal = one.propose(request_for(tmp_path / "w", seed=number))
        history.append(trial(number, proposal.description))
        one.observe(history[-1])
    restarted = SearchProposer(
        HINTS,
        batch_divides,
        seed=3,
        history=[Trial.from_dict(item.to_dict()) for item in history],
    )
    first = one.propose(request_for(tmp_path / "w", seed=9))
    again = restarted.propose(request_for(tmp_path / "w", seed=9))
    assert first.description == again.description
    assert len({item.description for item in history}) == len(history), "no proposal twice"


def objective(constants) -> float:
    """Lowest at MATRIX_LR 0.02 and DEPTH 6; worse with the distance."""
    return math.log(constants["MATRIX_LR"] / 0.02) ** 2 + 0.05 * (constants["DEPTH"] - 6) ** 2


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_finds_better_constants(tmp_path, method):
    source, only = SOURCE, ["MATRIX_LR", "DEPTH"]
    proposer = SearchProposer(only=only, method=method, seed=1)
    champion = start = objective(constants_of(source))
    rng = random.Random(0)
    for number in range(1, 41):
        request = request_for(tmp_path / "w", source, seed=number)
        proposal = proposer.propose(request)
        assert not proposal.problem
        text = (request.folder / "train.py").read_text(encoding="utf-8")
        score = objective(constants_of(text)) + rng.gauss(0, 0.001)
        kept = score < champion - 0.003
        status = TrialStatus.KEEP if kept else TrialStatus.DISCARD
        if score > champion + 1:
            status = TrialStatus.PRUNED
        proposer.observe(trial(number, proposal.description, status, score - champion))
        if kept:
            source, champion = text, score
    assert champion < 0.1 * start


MIXED = """DEPTH = 8
DEVICE_BATCH_SIZE = 16
MATRIX_LR = 0.04
ROPE_STEPS = 100
TIED = True
"""
MIXED_HINTS = {"DEPTH": Range(2, 12), "ROPE_STEPS": Range(10, 1000, log=True)}


def test_cma_es_searches_the_numbers_among_other_constants():
    """By itself once there are results enough; values are valid, TPE goes on beside it."""
    constants = constants_of(MIXED)
    proposer = SearchProposer(MIXED_HINTS, seed=3)
    tried, losses = [], []
    for number in range(1, 121):
        changes = proposer.suggest(constants, number)
        tried.append({name: value for name, _, value in changes})
        losses.append(mixed_objective({**constants, **tried[-1]}) - mixed_objective(constants))
        proposer.observe(trial(number, describe(changes), delta=losses[-1]))
    for values in tried:
        steps, depth = values.get("ROPE_STEPS", 100), values.get("DEPTH", 8)
        assert isinstance(steps, int) and 25 <= steps <= 400
        assert isinstance(depth, int) and 2 <= depth <= 12
        assert values.get("DEVICE_BATCH_SIZE", 16) in (4, 8, 16, 32, 64)
        assert 0.01 <= values.get("MATRIX_LR", 0.04) <= 0.16
    sizes = [len(values) for values in tried]
    assert max(sizes[:40]) <= 3, "TPE changes few at a time"
    assert sum(size > 3 for size in sizes[40:]) > 8, "CMA-ES all, though some come out as before"
    assert sum(size == 1 for size in sizes[40:]) > 3, "TPE"
    assert len({values.get("DEPTH") for values in tried[80:]}) > 1, "integers keep moving"
    late, early = (sorted(part)[len(part) // 2] for part in (losses[90:], losses[40:70]))
    assert late < early - 0.3, (late, early)


def mixed_objective(values) -> float:
    """Lowest at DEPTH 6, batches of 32, MATRIX_LR 0.02 and ROPE_STEPS 200."""
    return (
        0.05 * (values["DEPTH"] - 6) ** 2
        + math.log2(values["DEVICE_BATCH_SIZE"] / 32) ** 2 / 4
        + math.log(values["MATRIX_LR"] / 0.02) ** 2
        + math.log(values["ROPE_STEPS"] / 200) ** 2
    )


def test_learns_to_avoid_what_crashes(tmp_path):
    """Values above 8 crash: after twelve crashes they are drawn less often than at first."""
    source = "DEPTH = 8\n"
    drawn = {False: 0, True: 0}
    for seed in range(30):
        for learned in (False, True):
            history = [
                trial(n, f"DEPTH: 8 -> {9 + n % 8}", TrialStatus.CRASH, None) for n in range(12)
            ] + [trial(20 + n, f"DEPTH: 8 -> {4 + n % 4}", delta=0.001) for n in range(6)]
            proposer = SearchProposer(
                {"DEPTH": Range(2, 40)}, seed=seed, history=history if learned else []
            )
            proposer._issued.clear()
            name, _, value = proposer.suggest(constants_of(source), seed)[0]
            assert name == "DEPTH"
            drawn[learned] += value > 8
    assert drawn[True] < drawn[False]


def test_noisy_and_foreign_trials_teach_nothing(tmp_path):
    one = SearchProposer(seed=1)
    one.observe(trial(1, "a wider MLP", TrialStatus.KEEP, -0.1))
    assert one._outcomes == []
    one.observe(trial(2, "DEPTH: 8 -> 6", TrialStatus.NOISY, None))
    assert one._outcomes[0].state == "ignored" and "DEPTH: 8 -> 6" not in one._issued


def test_what_it_can_not_do_is_said(tmp_path):
    proposer = SearchProposer()
    assert proposer.propose(request_for(tmp_path / "a", attempt=1)).problem_kind == REFUSED
    assert proposer.propose(request_for(tmp_path / "b", "x = 1\n")).problem_kind == EXHAUSTED
    assert proposer.propose(request_for(tmp_path / "c", "X = (\n")).problem_kind == FAILED
    never = SearchProposer(valid=lambda constants: "no")
    found = never.propose(request_for(tmp_path / "d"))
    assert found.problem_kind == EXHAUSTED
    assert (tmp_path / "d" / "train.py").read_bytes() == SOURCE.encode()
    small = SearchProposer({"TIED": Choices((True, False))}, only=["TIED"])
    request = request_for(tmp_path / "e")
    assert small.propose(request).description == "TIED: True -> False"
    request = request_for(tmp_path / "e")
    assert small.propose(request).problem_kind == EXHAUSTED


def test_only_names_as_a_command_line_gives_them(tmp_path):
    proposer = SearchProposer(HINTS, only="MATRIX_LR, DEPTH")
    for number in range(10):
        found = proposer.propose(request_for(tmp_path / str(number), seed=number))
        assert set(found.details["changes"]) <= {"MATRIX_LR", "DEPTH"}
    none = SearchProposer(HINTS, only="MATRIX_RL").propose(request_for(tmp_path / "none"))
    assert none.problem_kind == EXHAUSTED and "MATRIX_RL" in none.problem
    assert "MATRIX_LR" in none.problem, "and what there is"


def test_options_are_checked():
    with pytest.raises(ProposerOptions):
        SearchProposer(method="grid")
    with pytest.raises(ProposerOptions):
        SearchProposer(max_changes=9)
    with pytest.raises(ProposerOptions, match="2 to 6 numbers to search"):
        SearchProposer(method="cmaes").suggest({"TIED": True, "LR": 0.1})


def test_a_request_is_frozen(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        request_for(tmp_path).seconds = 1


def test_what_is_in_flight_is_left_alone_until_its_outcome_is_known(tmp_path):
    """Proposals differ from those under way, also in which constants they change."""
    under_way: list[str] = []
    search = SearchProposer(HINTS, batch_divides, seed=3)
    for number in range(12):
        proposal = search.propose(
            request_for(tmp_path / str(number), seed=number, in_flight=tuple(under_way))
        )
        assert not proposal.problem
        under_way.append(proposal.description)
    assert len(set(under_way)) == 12
    changed = {name for text in under_way for name, _, _ in parse_changes(text)}
    assert len(changed) >= 5
    # After a restart the same one comes, though this search hasn't proposed the others.
    fresh = SearchProposer(HINTS, batch_divides, seed=3)
    last = request_for(tmp_path / "last", seed=11, in_flight=tuple(under_way[:11]))
    assert fresh.propose(last).description == under_way[11]


def test_a_pending_change_counts_among_the_worse(tmp_path):
    """Of one constant: what is under way draws no others near, though it was the best so far."""

    def proposals(in_flight):
        found = []
        for seed in range(30):
            search = SearchProposer({}, seed=seed, only=["MATRIX_LR"], max_changes=1)
            for number, value in enumerate((0.02, 0.03, 0.05, 0.06, 0.07, 0.075, 0.035, 0.045)):
                search.observe(
                    trial(number + 1, f"MATRIX_LR: 0.04 -> {value}", delta=abs(value - 0.02))
                )
            changes = search.suggest({"MATRIX_LR": 0.04}, 0, in_flight)
            found.append(changes[0][2])
        return found

    near = [f"MATRIX_LR: 0.04 -> {0.02 + step / 10000}" for step in range(1, 30)]
    crowd = sum(abs(value - 0.0215) < 0.0015 for value in proposals(()))
    assert crowd > sum(abs(value - 0.0215) < 0.0015 for value in proposals(near))


def test_what_it_goes_on_with_draws_the_same_as_what_is_made_anew(monkeypatch):
    """A proposer that lives through a study, and one that is started again before each proposal."""
    monkeypatch.setattr(samplers, "CROWD", 20)  # it begins anew now and then
    lasting = SearchProposer(hints=HINTS, seed=3, method="tpe")
    constants, observed, flying = constants_of(SOURCE), [], []
    rng, told = random.Random(5), []
    usual = samplers.Tpe._tell
    monkeypatch.setattr(
        samplers.Tpe, "_tell", lambda tpe, *more: told.append(tpe) or usual(tpe, *more)
    )
    for number in range(1, 61):
        afresh = SearchProposer(hints=HINTS, seed=3, method="tpe", history=observed)
        afresh._issued |= lasting._issued  # what was proposed and not decided is no trial yet
        in_flight = tuple(flying)
        changes = lasting.suggest(constants, number, in_flight)
        assert changes and changes == afresh.suggest(constants, number, in_flight)
        flying.append(describe(changes))
        if len(flying) > rng.choice((0, 2, 4)):
            description = flying.pop(rng.randrange(len(flying)))
            status = rng.choice((TrialStatus.DISCARD, TrialStatus.CRASH, TrialStatus.KEEP))
            decided = trial(number, description, status, rng.gauss(0.0, 0.02))
            observed.append(decided)
            lasting.observe(decided)
            if status is TrialStatus.KEEP and number % 3 == 0:  # another champion, another space
                for name, _, new in parse_changes(description):
                    constants[name] = new
    assert told.count(lasting._tpe) < len(told) / 3
