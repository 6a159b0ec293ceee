"""The loop with real git and a real ledger, on a task whose score is a number in a file."""

import subprocess
from dataclasses import replace

import pytest

from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.measuring import slow_start
from autoresearch.engine.policy import Greedy
from autoresearch.engine.proposers.base import Proposal
from autoresearch.engine.state import State
from autoresearch.engine.task import Budget, Task
from autoresearch.engine.trial import Cost, Failure, Replicate, Trial, TrialStatus, in_dollars
from autoresearch.engine.workspace import Workspace
from tests.unit.studies import NOISE, TASK, Script, measure, run


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


def test_what_is_known_is_measured_where_the_task_does_not_refuse_it(make_loop):
    measured_all = {"mutation": {"refuse_known": False}}
    loop = make_loop(task=Task.parse({**TASK.model_dump(mode="json"), **measured_all}))
    _, trials = run(
        loop, "VALUE = 1.0  # a remark\n", "VALUE = 1.3\n", "VALUE = 1.3\n", "VALUE = 1.0\n"
    )
    assert [len(trial.replicates) for trial in trials[1:]] == [1, 1, 1, 0]
    assert [trial.status for trial in trials[1:4]] == [TrialStatus.DISCARD] * 3
    assert trials[1].delta == 0
    assert trials[4].reason == "empty: nothing was changed"


def test_a_long_way_to_the_clock_is_said_and_decides_nothing(make_loop):
    def slow(request):
        run = measure(request)
        warmup = 400.0 if "candidate" in request.run_dir.name else 50.0
        return replace(run, seconds={**run.seconds, "startup": 1.0, "warmup": warmup})

    events = []
    loop = make_loop(on_event=lambda name, data: events.append((name, data)))
    loop.measure = slow
    _, trials = run(loop, "VALUE = 0.5\n")
    assert trials[1].status is TrialStatus.KEEP
    assert trials[1].warning.startswith("401 s passed before its clock started")
    assert "the champion took 51 s" in trials[1].warning
    assert [data["message"] for name, data in events if name == "warning"] == [
        f"trial 1: {trials[1].warning}"
    ]


def test_what_was_measured_otherwise_than_the_champion_says_so(make_loop):
    def measured_with(dtype):
        def of(request):
            run = measure(request)
            conditions = {"dtype": dtype, "torch": "2.13.0"}
            return replace(run, details={**run.details, "conditions": conditions})

        return of

    for number, (dtype, warned) in enumerate([("bf16", False), ("fp32", True), ("fp32", False)]):
        loop = make_loop()
        loop.measure = measured_with(dtype)
        _, trials = run(loop, f"VALUE = 0.{5 - number}\n")
        assert trials[-1].status is TrialStatus.KEEP
        assert ("dtype fp32, not bf16" in trials[-1].warning) is warned
        assert "torch" not in trials[-1].warning


@pytest.mark.parametrize(
    ("own", "usual", "alarms"),
    [(110.0, 0.0, False), (130.0, 0.0, True), (140.0, 50.0, False), (160.0, 50.0, True)],
)
def test_a_cold_compile_is_no_alarm(own, usual, alarms):
    def of(seconds):
        return Replicate(0, 1.0, seconds={"startup": 0.0, "warmup": seconds, "training": 999.0})

    assert bool(slow_start([of(1.0), of(own)], [of(usual), of(1.0)] if usual else [])) is alarms
    assert slow_start([], []) == ""


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


@pytest.mark.parametrize(("kind", "known"), [("killed", False), ("nan", True)])
def test_what_was_killed_from_outside_may_be_tried_again(make_loop, kind, known):
    broken = f'VALUE = 0.5\ncrash = "{kind}"\n'
    loop = make_loop()
    _, trials = run(loop, broken)
    assert trials[1].status is TrialStatus.CRASH
    assert (trials[1].diff_hash in loop.state.seen) is known


def test_a_champion_that_is_disturbed_whenever_it_runs_makes_a_trial_noisy(make_loop):
    runs = []

    def restless(request):
        runs.append(request.run_dir.name)
        assert len(set(runs)) == len(runs), "no run is made twice"
        calm = request.run_dir.name.startswith("candidate")
        return replace(measure(request), disturbed="" if calm else "a neighbour")

    with make_loop() as loop:
        loop.measure = restless
        loop.run(Script("VALUE = 0.5\n"), Budget(trials=1))
    trial = loop.ledger.trials()[1]
    assert trial.status is TrialStatus.NOISY and trial.reason.startswith("the champion's: a neigh")
    assert trial.champion_replicates and loop.state.champion == 0


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


def test_a_champion_as_good_as_the_target_ends_a_run(make_loop):
    objective = TASK.objective.model_copy(update={"target": 0.5})
    task = TASK.model_copy(update={"objective": objective})
    proposer = Script("VALUE = 0.7\n", "VALUE = 0.2\n", "VALUE = 0.1\n")
    for asked in (3, 2):  # also at the next start: nothing more is proposed
        with make_loop(task=task) as loop:
            assert loop.run(proposer, Budget(trials=asked)) == "the target is reached: 0.5"
        assert len(loop.ledger.trials()) == 3


def test_what_proposals_cost_is_counted_also_when_nothing_came(make_loop):
    cost = Cost(dollars=0.4, tokens_in=100, tokens_out=20, known="native")
    nothing = Proposal("", cost=cost, problem="no edit", problem_kind="no_edit")
    proposer = Script(nothing, nothing, nothing, "VALUE = 2.0\n")
    with make_loop() as loop:
        assert "dollars spent" in loop.run(proposer, Budget(dollars=1.0))
    assert loop.state.dollars == pytest.approx(1.2)
    assert loop.state.tokens == 360


@pytest.mark.parametrize(
    ("budget", "asked", "left"),
    [
        (Budget(dollars=1.0), 2, [1.0, 0.4]),
        (Budget(tokens=1_500), 2, [None, None]),
        (Budget(hours=0.1), 1, [None]),
        (Budget(trials=1), 3, [None, None, None]),
    ],
)
def test_what_a_trial_under_way_has_cost_ends_its_mending(make_loop, budget, asked, left):
    now = [0.0]

    class Dear(Script):
        def propose(self, request):
            now[0] += 400.0
            cost = Cost(dollars=0.6, tokens_in=700, tokens_out=100, known="native")
            return replace(super().propose(request), cost=cost)

    loop = make_loop(clock=lambda: now[0])
    proposer = Dear(*[f'VALUE = 0.{n}\ncrash = "nan"\n' for n in range(1, 9)])
    with loop:
        loop.run(proposer, budget)
    assert [request.dollars_left for request in proposer.requests] == pytest.approx(left)
    trial = loop.ledger.trials()[1]
    assert trial.status is TrialStatus.CRASH and trial.cost.dollars == pytest.approx(0.6 * asked)
    assert loop.state.tokens == 800 * asked


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0.0, "0.00"),
        (0.0000421, "0.0000421"),
        (0.0042, "0.00420"),
        (0.25, "0.250"),
        (12.5, "12.50"),
    ],
)
def test_small_amounts_keep_their_digits(amount, words):
    assert in_dollars(amount) == f"{words} dollars"


def test_a_proposer_that_gives_nothing_is_given_up_after_growing_waits(make_loop):
    nothing = Proposal("", problem="no edit", problem_kind="no_edit", log_tail="rate limit")
    waited = []
    loop = make_loop(sleep=waited.append)
    with pytest.raises(StudyStopped, match="12 times in a row") as stopped:
        run(loop, *[nothing] * 15)
    assert len(loop.ledger.records("no_proposal")) == 12
    assert sum(waited) == 5 + 10 + 20 + 40 + 80 + 160 + 320 + 640 + 3 * 900
    log = loop.runs / "no-proposal.log"
    assert str(log) in stopped.value.hint and log.read_text() == "rate limit"


def test_a_night_outlasts_a_proposer_that_gives_nothing_for_hours(make_loop):
    nothing = Proposal("", problem="no network", problem_kind="failed")
    now = [0.0]
    loop = make_loop(
        clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    proposer = Script(*[nothing] * 20, "VALUE = 0.5\n", *[nothing] * 50)
    with loop:
        assert "8 hours are over" in loop.run(proposer, Budget(hours=8))
    assert now[0] == pytest.approx(8 * 3600, abs=1)
    assert [trial.status for trial in loop.ledger.trials()] == [TrialStatus.KEEP] * 2
    assert all(60 <= request.seconds <= 900 for request in proposer.requests)
    assert proposer.requests[-1].seconds < 900, "what is left of the hours"


def test_asked_to_stop_it_does_not_wait_on(make_loop):
    nothing = Proposal("", problem="no network", problem_kind="failed")
    loop = make_loop(sleep=lambda seconds: setattr(loop, "stop_asked", True))
    with loop:
        assert loop.run(Script(*[nothing] * 3), Budget(hours=1)) == "asked to stop"


def test_a_disturbed_baseline_says_so(make_loop, repository):
    (repository / "value.py").write_text('VALUE = 1.0\nDISTURBED = "a neighbour"\n')
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "disturbed"], cwd=repository, check=True)
    _, trials = run(make_loop())
    assert "3 of them disturbed: a neighbour" in trials[0].reason


def test_a_program_that_never_ran_stops_the_study(make_loop, repository):
    (repository / "value.py").write_text('crash = "exception"\n')
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "broken"], cwd=repository, check=True)
    with pytest.raises(StudyStopped, match="before anything was changed"):
        run(make_loop(), "VALUE = 1.0\n")


def crashes(trials, kind="killed", first=1):
    """Programs of so many trials that crash, and so do both attempts to mend them."""
    return [f'VALUE = {n}.5\ncrash = "{kind}"\n' for n in range(first, first + 3 * trials)]


def test_crashes_in_a_row_pause_and_go_on_when_the_champion_runs(make_loop):
    events, waited = [], []
    loop = make_loop(on_event=lambda name, data: events.append((name, data)), sleep=waited.append)
    again = crashes(3, first=10) + crashes(3, "oom", first=20)
    _, trials = run(loop, *crashes(3), "VALUE = 0.8\n", *again, "VALUE = 0.6\n")
    assert [trial.status for trial in trials[3:]] == [
        *[TrialStatus.CRASH, TrialStatus.KEEP],
        *[TrialStatus.CRASH] * 6,
        TrialStatus.KEEP,
    ]
    pauses = [data for name, data in events if name == "pause"]
    assert [data["seconds"] for data in pauses] == [5, 5, 10], "longer until a trial runs again"
    assert sum(waited) == 20
    assert pauses[0]["reason"].startswith("3 crashes in a row (killed); then the champion is run")
    assert [record["seconds"] for record in loop.ledger.records("pause")] == [5, 5, 10]
    assert sum(name == "run" and data["label"] == "check" for name, data in events) == 3


def test_exceptions_of_different_types_are_crashes_of_different_kinds():
    state = State()
    names = ["ValueError", "NameError", "NameError", "torch.OutOfMemoryError", "KeyError"]
    found = []
    for number, name in enumerate(names):
        failure = Failure("warmup", "exception", f"{name}: see above: it broke")
        runs = (Replicate(0, None, failure=failure),)
        state.add(Trial(number, 0, TrialStatus.CRASH, "", replicates=runs))
        found.append(state.crashes_in_a_row())
    assert found[2] == ("exception NameError", 2)
    assert [count for _, count in found] == [1, 1, 2, 1, 1]


def test_a_restart_remembers_how_long_it_paused(make_loop):
    waited = []
    run(make_loop(), *crashes(3))
    run(make_loop(sleep=waited.append), *crashes(3, "oom", first=10))
    assert sum(waited) == 10


def failing(labels):
    """`measure`, with a machine that fails runs of these labels, once each."""

    def broken(request):
        if labels and request.run_dir.name.startswith(labels[0]):
            del labels[0]
            failure = Failure("startup", "killed", "no memory left")
            return Replicate(request.seed, None, failure=failure)
        return measure(request)

    return broken


def test_a_machine_that_fails_the_champion_too_is_waited_for(make_loop):
    waited = []
    loop = make_loop(sleep=waited.append)
    loop.measure = failing(["check"] * 3)
    _, trials = run(loop, *crashes(3), "VALUE = 0.8\n")
    assert trials[-1].status is TrialStatus.KEEP
    assert sum(waited) == 5 + 10 + 20 + 40
    why = "the champion, which ran before, fails: startup: no memory left"
    assert [record["reason"] for record in loop.ledger.records("pause")][1:] == [why] * 3


def test_a_champion_that_fails_amid_a_trial_leaves_it_open(make_loop):
    """Nothing is concluded of the candidate, what it cost is counted, and it may come again."""
    loop = make_loop()
    loop.task = TASK.model_copy(
        update={"policy": TASK.policy.model_copy(update={"noise_seeds": 2})}
    )
    loop.measure = failing(["champion"])
    _, trials = run(loop, "VALUE = 0.985\n", "VALUE = 0.985\n")
    assert trials[1].status is TrialStatus.NOISY
    assert trials[1].reason.startswith("the champion, which ran before, fails: startup")
    assert len(trials) == 3 and trials[2].status is not TrialStatus.REJECTED
    assert len(loop.ledger.records("pause")) == 1


def test_a_champion_that_never_runs_again_ends_what_has_no_hours(make_loop):
    loop = make_loop()
    loop.measure = failing(["check"] * 99)
    with pytest.raises(StudyStopped, match="the champion, which ran before, fails") as stopped:
        run(loop, *crashes(3))
    assert "12 times in a row" in stopped.value.message and "doctor" in stopped.value.hint


def test_hours_and_a_wish_to_stop_hold_in_a_pause(make_loop):
    now = [0.0]
    loop = make_loop(
        clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    loop.measure = failing(["check"] * 99)
    with loop:
        assert "1 hours are over" in loop.run(Script(*crashes(3)), Budget(hours=1))
    assert now[0] == pytest.approx(3600, abs=1)
    loop = make_loop(sleep=lambda seconds: setattr(loop, "stop_asked", True))
    with loop:
        programs = Script(*crashes(3, "oom", first=20), "VALUE = 0.5\n")
        assert loop.run(programs, Budget()) == "asked to stop"
        assert len(programs.programs) == 1


def test_logs_of_attempts_before_a_repair_are_kept(make_loop, repository):
    def logged(request):
        request.run_dir.mkdir(parents=True, exist_ok=True)
        (request.run_dir / "train.log").write_text((request.folder / "value.py").read_text())
        (request.run_dir / "weights.bin").write_text("large")
        return measure(request)

    runs = repository / ".autoresearch" / "runs" / "0001"
    (runs / "candidate-0").mkdir(parents=True)
    (runs / "candidate-0" / "train.log").write_text("of a loop that was killed")
    loop = make_loop(large_files=("weights.bin",))
    loop.measure = logged
    _, trials = run(loop, 'VALUE = 0.8\ncrash = "nan"\n', 'crash = "oom"\n', "VALUE = 0.8\n")
    assert trials[1].status is TrialStatus.KEEP and trials[1].mended == 2

    def first(folder):
        return (next(folder.glob("candidate-*")) / "train.log").read_text()

    assert first(runs) == "VALUE = 0.8\n"
    assert first(runs / "attempt-1").endswith('crash = "nan"\n')
    assert first(runs / "attempt-2") == 'crash = "oom"\n'
    assert first(runs / "killed-1") == "of a loop that was killed"
    assert "nan" in (runs / "attempt-1" / "change.diff").read_text()
    assert all(path.parent.parent == runs for path in runs.rglob("weights.bin"))


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
