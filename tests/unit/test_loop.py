"""The loop with real git and a real ledger, on a task whose score is a number in a file."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.loop import Loop
from autoresearch.engine.policy import Confirm, Greedy, Policy
from autoresearch.engine.proposers.base import EXHAUSTED, NO_COST, Proposal, ProposalRequest
from autoresearch.engine.task import Budget, MeasureRequest, Task
from autoresearch.engine.trial import Cost, Failure, Replicate, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

TASK = Task.parse(
    {
        "id": "number",
        "artifacts": {"include": ["value.py"]},
        "objective": {"metric": "score", "direction": "minimize"},
        "constraints": ["memory <= 2 * baseline.memory"],
    }
)
NOISE = 0.01


def measure(request: MeasureRequest) -> Replicate:
    """The value in the file, plus noise that the seed and the value decide."""
    text = (request.folder / "value.py").read_text()
    space: dict[str, object] = {}
    exec(text, space)
    if "crash" in space:
        failure = Failure("training", str(space["crash"]), "it broke", "Traceback ...")
        return Replicate(request.seed, None, failure=failure)
    value = float(space["VALUE"])  # type: ignore[arg-type]
    noise = random.Random(f"{request.seed} {value}").gauss(0, NOISE)
    return Replicate(
        request.seed,
        value + noise,
        metrics={"memory": float(space.get("MEMORY", 1.0))},  # type: ignore[arg-type]
        seconds={"training": 1.0},
        disturbed=str(space.get("DISTURBED", "")),
        score_id="same",
        details={"tier": "none", "curve": [[0.0, 2.0], [1.0, value]]},
    )


class Script:
    """A proposer that writes the given programs, one after the other."""

    name = "script"

    def __init__(self, *programs: str | Proposal) -> None:
        self.programs = list(programs)
        self.requests: list[ProposalRequest] = []
        self.observed: list[Trial] = []

    def propose(self, request: ProposalRequest) -> Proposal:
        self.requests.append(request)
        if not self.programs:
            return Proposal("", problem="no more ideas", problem_kind=EXHAUSTED)
        program = self.programs.pop(0)
        if isinstance(program, Proposal):
            return program
        (request.folder / "value.py").write_text(program)
        first = program.splitlines()[0]
        return Proposal(f"write {first}", predicted=-0.1, cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        self.observed.append(trial)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    root.mkdir()
    (root / "value.py").write_text("VALUE = 1.0\n")
    (root / "other.txt").write_text("mine\n")
    for command in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


@pytest.fixture
def make_loop(repository: Path) -> Callable[..., Loop]:
    def make(policy: Policy | None = None, **more: object) -> Loop:
        workspace = Workspace.open(repository, "test", create=True)
        ledger = Ledger(repository / "results.jsonl")
        options = {"rules": frozenset({"causality"}), "sleep": lambda seconds: None, **more}
        return Loop(
            TASK,
            workspace,
            ledger,
            measure,
            policy or Confirm(),
            runs=repository / ".autoresearch" / "runs",
            **options,  # type: ignore[arg-type]
        )

    return make


def run(loop: Loop, *programs: str | Proposal) -> tuple[Script, list[Trial]]:
    proposer = Script(*programs)
    with loop:
        loop.run(proposer, Budget())
    return proposer, loop.ledger.trials()


def test_the_baseline_is_measured_on_several_seeds_first(make_loop):
    _, trials = run(make_loop())
    assert len(trials) == 1
    assert trials[0].status is TrialStatus.KEEP
    assert len(trials[0].replicates) == 3
    assert trials[0].score == pytest.approx(1.0, abs=5 * NOISE)


def test_a_real_improvement_is_confirmed_and_kept(make_loop, repository):
    loop = make_loop()
    proposer, trials = run(loop, "VALUE = 0.9\n")
    kept = trials[1]
    assert kept.status is TrialStatus.KEEP, kept.reason
    assert kept.parent == 0
    assert kept.delta == pytest.approx(-0.1, abs=5 * NOISE)
    assert kept.confidence is not None
    assert kept.confidence >= 0.95
    assert len(kept.replicates) >= 2
    assert kept.extra_runs >= 1
    assert kept.predicted == -0.1
    assert loop.workspace.champion_commit == kept.commit
    shown = subprocess.run(
        ["git", "show", "autoresearch/test:value.py"], cwd=repository, capture_output=True
    )
    assert shown.stdout == b"VALUE = 0.9\n"
    message = subprocess.run(
        ["git", "log", "-1", "--format=%B", "autoresearch/test"],
        cwd=repository,
        capture_output=True,
        text=True,
    ).stdout
    assert message.startswith("score ")
    assert " -> " in message.splitlines()[0]
    assert "Trial: 1" in message
    assert [trial.id for trial in proposer.observed] == [0, 1]


def test_a_worse_edit_costs_one_run_and_changes_nothing(make_loop, repository):
    loop = make_loop()
    _, trials = run(loop, "VALUE = 1.2\n")
    assert trials[1].status is TrialStatus.DISCARD
    assert len(trials[1].replicates) == 1
    assert loop.workspace.champion_commit == trials[0].commit
    assert (repository / "value.py").read_text() == "VALUE = 1.0\n"
    assert (repository / ".autoresearch" / "runs" / "0001" / "change.diff").is_file()


def test_what_need_not_be_run_is_refused(make_loop):
    calls = []

    def counted(request):
        calls.append(request)
        return measure(request)

    loop = make_loop()
    loop.measure = counted
    _, trials = run(
        loop,
        "VALUE = 1.0  # only a comment\n",
        "VALUE = 1.3\n",
        "VALUE = 1.3  # again\n",
        "VALUE = (\n",
    )
    assert [trial.status for trial in trials[1:]] == [
        TrialStatus.REJECTED,
        TrialStatus.DISCARD,
        TrialStatus.REJECTED,
        TrialStatus.REJECTED,
    ]
    assert "comments" in trials[1].reason
    assert "trial 2" in trials[3].reason
    assert "syntax" in trials[4].reason
    assert sum("candidate" in call.run_dir.name for call in calls) == 1


def test_a_broken_rule_is_rejected_and_a_crash_is_mended(make_loop):
    proposer, trials = run(
        make_loop(),
        'VALUE = 0.1\ncrash = "causality"\n',
        'VALUE = 0.8\ncrash = "nan"\n',
        "VALUE = 0.8\n",
    )
    assert trials[1].status is TrialStatus.REJECTED
    assert trials[1].reason.startswith("training: causality")
    assert trials[2].status is TrialStatus.KEEP
    assert proposer.requests[2].attempt == 1
    assert proposer.requests[2].failure is not None
    assert proposer.requests[2].failure.kind == "nan"


def test_what_can_not_be_mended_is_a_crash(make_loop):
    broken = 'VALUE = 0.5\ncrash = "nan"\n'
    proposer, trials = run(make_loop(), broken, broken + "A = 1\n", broken + "B = 1\n")
    assert [trial.status for trial in trials] == [TrialStatus.KEEP, TrialStatus.CRASH]
    assert [request.attempt for request in proposer.requests] == [0, 1, 2, 0]


def test_a_constraint_rejects(make_loop):
    _, trials = run(make_loop(), "VALUE = 0.5\nMEMORY = 3.0\n")
    assert trials[1].status is TrialStatus.REJECTED
    assert "memory" in trials[1].reason


def test_a_disturbed_run_is_made_again_and_then_noisy(make_loop):
    calls = []

    def counted(request):
        calls.append(request)
        return measure(request)

    loop = make_loop()
    loop.measure = counted
    _, trials = run(loop, 'VALUE = 0.5\nDISTURBED = "a neighbour"\n')
    assert trials[1].status is TrialStatus.NOISY
    assert "a neighbour" in trials[1].reason
    assert sum("candidate" in call.run_dir.name for call in calls) == 3
    assert trials[1].diff_hash not in loop.state.seen


def test_greedy_keeps_what_is_better_on_one_run(make_loop):
    _, trials = run(make_loop(Greedy()), "VALUE = 0.9\n", "VALUE = 0.95\n")
    assert [trial.status for trial in trials[1:]] == [TrialStatus.KEEP, TrialStatus.DISCARD]
    assert len(trials[1].replicates) == 1


def test_a_restart_goes_on_where_the_ledger_ends(make_loop, repository):
    _, first = run(make_loop(), "VALUE = 0.9\n")
    loop = make_loop()
    proposer, trials = run(loop, "VALUE = 0.8\n")
    assert [trial.id for trial in trials] == [0, 1, 2]
    assert trials[:2] == first
    assert trials[2].parent == 1
    assert trials[2].status is TrialStatus.KEEP
    assert [trial.id for trial in proposer.observed] == [0, 1, 2]


def test_a_kill_between_the_line_and_git_is_mended(make_loop, repository, monkeypatch):
    def killed(self, commit):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "advance", killed)
        with pytest.raises(KeyboardInterrupt):
            run(make_loop(), "VALUE = 0.9\n")
    loop = make_loop()
    with loop:
        kept = loop.ledger.trials()[1]
        assert kept.status is TrialStatus.KEEP
        assert loop.workspace.champion_commit == kept.commit
    assert not list((repository / ".autoresearch" / "work").glob("test@*"))


def test_budgets_end_a_run(make_loop):
    programs = [f"VALUE = 1.{n}\n" for n in range(1, 9)]
    proposer = Script(*programs)
    with make_loop() as loop:
        assert "2 trials" in loop.run(proposer, Budget(trials=2))
    assert len(loop.ledger.trials()) == 3
    clock = iter(range(0, 10**6, 1000))
    with make_loop(clock=lambda: float(next(clock))) as loop:
        assert "hours are over" in loop.run(proposer, Budget(hours=0.5))


def test_what_proposals_cost_is_counted_also_when_nothing_came(make_loop):
    cost = Cost(dollars=0.4, tokens_in=100, tokens_out=20, known="native")
    nothing = Proposal("", cost=cost, problem="no edit", problem_kind="no_edit")
    proposer = Script(nothing, nothing, nothing, "VALUE = 2.0\n")
    with make_loop() as loop:
        assert "dollars spent" in loop.run(proposer, Budget(dollars=1.0))
    assert loop.state.dollars == pytest.approx(1.2)
    assert loop.state.tokens == 360


def test_a_proposer_that_gives_nothing_is_given_up(make_loop):
    nothing = Proposal("", problem="no edit", problem_kind="no_edit")
    with pytest.raises(StudyStopped, match="5 times in a row"):
        run(make_loop(), *[nothing] * 9)


def test_a_program_that_never_ran_stops_the_study(make_loop, repository):
    (repository / "value.py").write_text('crash = "exception"\n')
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "broken"], cwd=repository, check=True)
    with pytest.raises(StudyStopped, match="before anything was changed"):
        run(make_loop(), "VALUE = 1.0\n")


def test_crashes_in_a_row_ask_whether_the_machine_still_works(make_loop):
    events = []
    broken = [f'VALUE = 0.{n}\ncrash = "killed"\n' for n in range(1, 10)]
    loop = make_loop(on_event=lambda name, data: events.append((name, data)))
    _, trials = run(loop, *broken)
    assert len(trials) == 4
    assert any("crashes in a row" in data.get("message", "") for _, data in events)
    assert loop.ledger.records("pause")


def test_files_beside_the_artifacts_do_not_run(make_loop, repository):
    seen = []

    def look(request):
        seen.append(sorted(path.name for path in request.folder.iterdir()))
        return measure(request)

    class Sneaky(Script):
        def propose(self, request):
            if self.programs:
                (request.folder / "notes.txt").write_text("left over")
            return super().propose(request)

    loop = make_loop()
    loop.measure = look
    with loop:
        loop.run(Sneaky("VALUE = 1.5\n"), Budget())
    assert all("notes.txt" not in names for names in seen)


def test_large_files_go_unless_kept(make_loop, repository):
    def heavy(request):
        request.run_dir.mkdir(parents=True)
        (request.run_dir / "weights.bin").write_bytes(b"x")
        return measure(request)

    loop = make_loop(large_files=("weights.bin",))
    loop.measure = heavy
    with loop:
        loop.run(Script("VALUE = 1.5\n", "VALUE = 0.5\n"), Budget())
    runs = repository / ".autoresearch" / "runs"
    assert not list((runs / "0001").glob("*/weights.bin"))
    assert list((runs / "0002").glob("*/weights.bin"))
