"""Keep or discard: the rules one by one, then their error rates on drawn noise."""

import math
import random
from dataclasses import replace

import pytest

from autoresearch.engine.evidence import Evidence, estimate_effect
from autoresearch.engine.noise import Noise, location, normal_equivalent, oddest
from autoresearch.engine.policy import Confirm, Greedy
from autoresearch.engine.state import State
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from tests.unit.benchmark_scripts import benchmark

NOISE = Noise(sd=0.002, dof=20)
CHAMPION = {0: 1.000, 1: 1.001, 2: 0.999, 3: 1.0005, 4: 0.9995, 5: 1.0002}


def evidence(candidate, champion=None, **more):
    fields = {"noise": NOISE, **more}
    return Evidence(candidate, CHAMPION if champion is None else champion, **fields)


@pytest.fixture(scope="module")
def bench():
    with benchmark("decision_simulator") as module:
        yield module


# Greedy


def test_greedy_keeps_what_is_better_and_nothing_else():
    policy = Greedy()
    assert policy.decide(evidence({0: 0.9999})).action == "keep"
    assert policy.decide(evidence({0: 1.0})).action == "discard"
    assert policy.decide(evidence({0: 1.0001})).action == "discard"
    assert policy.decide(evidence({0: 1.1}, direction="maximize")).action == "keep"
    assert policy.decide(evidence({0: math.nan})).action == "discard"


@pytest.mark.parametrize("policy", [Greedy(), Confirm()])
def test_what_is_missing_is_measured_first(policy):
    champion = policy.decide(evidence({}, {}))
    assert champion.action == "measure" and champion.champion_seeds
    candidate = policy.decide(evidence({}))
    assert candidate.action == "measure" and candidate.candidate_seeds[0] in CHAMPION


# Where the champion stands


def test_a_kept_candidate_is_taken_for_less_than_it_showed():
    candidate = {0: 0.997}
    plain = estimate_effect(evidence(candidate))
    kept = estimate_effect(evidence(candidate, chosen_by=4))
    # One standard error of 4 runs, on 4 of its 6 runs.
    assert kept.delta - plain.delta == pytest.approx(0.001 * 4 / 6, rel=0.01)
    assert kept.se == pytest.approx(plain.se)


def test_what_was_dropped_tells_where_the_champion_stands():
    candidate, three = {0: 0.9985}, {0: 1.0, 1: 1.001, 2: 0.999}

    def centre(dropped, **more):
        return estimate_effect(evidence(candidate, three, dropped=dropped, **more)).champion

    many_better = [(turn % 3, 0.9985) for turn in range(20)]
    none_close = [(turn % 3, 1.003) for turn in range(20)]
    assert centre([]) == pytest.approx(1.0)
    assert centre(many_better) < 0.9992 and centre(none_close) > 1.0004
    # However many there are, by one standard error of its own runs at most.
    se = NOISE.sd / math.sqrt(3)
    assert centre(none_close * 50) <= 1.0 + 1.001 * se
    # Clear harm, and seeds on which the champion didn't run, say nothing.
    assert centre([(0, 1.05)] * 20) == pytest.approx(1.0)
    assert centre([(9, 0.9985)] * 20) == pytest.approx(1.0)
    # Nor does the champion's own run under another name, as often as it comes.
    assert estimate_effect(evidence(candidate, three, dropped=[(0, 1.0)] * 20)).se == (
        estimate_effect(evidence(candidate, three)).se
    )
    sharper = estimate_effect(evidence(candidate, three, dropped=[(0, 1.0001), (1, 1.0009)] * 10))
    assert sharper.se < 0.9 * estimate_effect(evidence(candidate, three)).se


def test_dropped_runs_on_one_seed_speak_for_that_seed_where_seeds_are_shared():
    noise = Noise(0.002, 20, correlation=0.8)
    champion = {0: 1.0, 1: 1.004, 2: 0.996}
    dropped = [(1, 1.0042), (1, 1.0038)] * 8
    low = estimate_effect(evidence({1: 1.003}, champion, noise=noise, dropped=dropped))
    assert low.champion == pytest.approx(1.0, abs=6e-4)
    assert low.delta > 0  # better on that seed, though worse than the champion's mean


def test_the_ledger_says_what_was_dropped_and_chosen():
    def trial(number, parent, status, *runs):
        replicates = tuple(Replicate(seed, score, score_id="s") for seed, score in runs)
        return Trial(number, parent, status, "", replicates=replicates)

    state = State()
    state.add(trial(0, None, TrialStatus.KEEP, (0, 1.0), (1, 1.1)))
    state.add(trial(1, 0, TrialStatus.DISCARD, (1, 1.3), (0, 1.2)))
    state.add(trial(2, 0, TrialStatus.CRASH, (0, None)))
    state.add(trial(3, 0, TrialStatus.KEEP, (0, 0.9), (1, 0.95)))
    state.add(trial(4, 3, TrialStatus.DISCARD, (0, 0.91)))
    assert state.dropped(0, "s") == [(1, 1.3)] and state.dropped(3, "s") == [(0, 0.91)]
    assert state.dropped(0, "another score") == []
    assert (state.chosen_by(0, "s"), state.chosen_by(3, "s")) == (0, 2)


def noise_of(trials, extra=()):
    """The noise of all repeats of score id "s", from the trials alone."""

    def scores(runs):
        return {run.seed: run.score for run in runs}

    def known(number):
        beside = (t.champion_replicates for t in trials if t.parent == number)
        return scores((*trials[number].replicates, *(run for runs in beside for run in runs)))

    groups, pairs = list(extra), []
    for trial in trials:
        own = list(known(trial.id).values())
        groups.append(own if trial.parent is None else own[1:])
        if trial.parent is not None:
            mine, theirs = scores(trial.replicates), known(trial.parent)
            shared = [seed for seed in mine if seed in theirs]
            pairs.append(([theirs[seed] for seed in shared], [mine[seed] for seed in shared]))
    return Noise.pooled(groups, pairs)


def test_noise_that_grows_trial_by_trial_is_that_of_the_whole_ledger():
    """What is held of the noise between decisions, against what all trials together say."""
    rng = random.Random(1)
    grown, trials, champion = State(), [], 0
    baseline = [Replicate(seed, rng.gauss(1, 0.1), score_id="s") for seed in range(3)]
    for number in range(60):
        status = rng.choice([TrialStatus.DISCARD] * 3 + [TrialStatus.KEEP])
        runs = [
            tuple(Replicate(seed, rng.gauss(1, 0.1), score_id="s") for seed in range(most))
            for most in (rng.randrange(1, 5), rng.randrange(3, 6) if rng.random() < 0.3 else 0)
        ]
        own, theirs = runs if number else (tuple(baseline), ())
        trials.append(
            Trial(
                number,
                champion if number else None,
                status if number else TrialStatus.KEEP,
                "",
                replicates=own,
                champion_replicates=theirs,
            )
        )
        grown.add(trials[-1])
        champion = number if trials[-1].status is TrialStatus.KEEP else champion
        assert grown.noise("s") == noise_of(trials)
        assert grown.noise("s", [[1.0, 1.2]]) == noise_of(trials, [[1.0, 1.2]])
    fresh = State()
    for trial in trials:
        fresh.add(trial)
    assert fresh.noise("s") == grown.noise("s") and grown.noise("t") is None


# Confirm, step by step


def test_clearly_worse_is_dropped_after_one_run():
    decision = Confirm().decide(evidence({0: 1.02}))
    assert decision.action == "discard"
    assert decision.delta == pytest.approx(-0.02, abs=1e-4)
    assert "clearly worse" in decision.reason and "1 run" in decision.reason


def test_one_good_run_is_never_enough():
    decision = Confirm().decide(evidence({0: 0.98}))
    assert decision.action == "measure"
    assert len(decision.candidate_seeds) == 1
    assert decision.candidate_seeds[0] in CHAMPION and decision.candidate_seeds[0] != 0


def test_large_improvement_is_kept_after_two_runs():
    decision = Confirm().decide(evidence({0: 0.98, 1: 0.981}))
    assert decision.action == "keep"
    assert decision.confidence >= 0.95 and decision.delta == pytest.approx(0.0195, abs=1e-4)
    assert "0.95" not in decision.reason.split(";")[0] and "sure" in decision.reason


def test_what_fades_is_discarded_and_the_last_run_decides():
    assert Confirm().decide(evidence({0: 0.996, 1: 1.004})).action == "discard"
    six = dict.fromkeys(range(6), 0.9995)
    final = Confirm().decide(evidence(six))
    assert final.action == "discard" and "not shown" in final.reason
    for most in (2, 3, 9):
        runs = {seed: 0.9985 + 1e-6 * seed for seed in range(most)}
        assert Confirm(max_replicates=most).decide(evidence(runs)).action != "measure"


def test_thin_champion_is_measured_again():
    decision = Confirm().decide(evidence({0: 0.99}, {0: 1.0}))
    assert decision.action == "measure" and not decision.candidate_seeds
    assert len(decision.champion_seeds) == 2 and 0 not in decision.champion_seeds
    three = {0: 1.0, 1: 1.001, 2: 0.999}
    promising = Confirm().decide(evidence({0: 0.99}, three))
    assert promising.candidate_seeds[0] in three and not promising.champion_seeds


def test_champion_with_an_odd_run_is_measured_again_while_noise_is_unknown():
    champion = {0: 1.0, 1: 1.001, 2: 1.03}
    noise = Noise.pooled([list(champion.values())])
    decision = Confirm().decide(evidence({0: 1.0}, champion, noise=noise))
    assert decision.action == "measure" and len(decision.champion_seeds) == 2
    champion |= {3: 0.999, 4: 1.0005}
    noise = Noise.pooled([list(champion.values())])
    assert noise.sd < 0.002
    assert estimate_effect(evidence({0: 1.0}, champion, noise=noise)).delta < 0.002


def test_new_seeds_are_shared_by_both():
    candidate = dict.fromkeys(range(3), 0.9975)
    decision = Confirm().decide(evidence(candidate, {0: 1.0, 1: 1.001, 2: 0.999}))
    assert decision.action == "measure"
    assert decision.candidate_seeds[0] not in candidate
    assert decision.candidate_seeds[0] in decision.champion_seeds


def test_turn_rotates_the_first_seed():
    seeds = {Confirm().decide(evidence({}, turn=t)).candidate_seeds[0] for t in range(6)}
    assert seeds == set(CHAMPION)


@pytest.mark.parametrize("champion", [{}, {0: 1.0}, {3: 1.0, 4: 1.001}, CHAMPION])
@pytest.mark.parametrize("turn", [0, 7])
def test_what_is_foreseen_is_asked_for_as_long_as_it_stays_promising(champion, turn):
    policy, asked, so_far = Confirm(), [], evidence({}, dict(champion), turn=turn)
    foreseen = policy.foreseen(so_far, 20)
    while (decision := policy.decide(so_far)).action == "measure":
        look = decision.candidate_seeds, decision.champion_seeds
        asked.append(look)
        # Promising and never sure: two standard errors of one run ahead, and less with each.
        ahead = 2.4 * NOISE.sd / math.sqrt(len(so_far.candidate) + 1)
        so_far = replace(
            so_far,
            candidate=dict.fromkeys((*so_far.candidate, *decision.candidate_seeds), 1.0 - ahead),
            champion={**so_far.champion, **dict.fromkeys(decision.champion_seeds, 1.0)},
        )
    assert len(asked) >= 2
    assert asked == foreseen[: len(asked)]
    assert sum(len(own) for own, _ in foreseen) == policy.max_replicates
    assert Greedy().foreseen(so_far, 3) == []


def test_direction_is_a_mirror():
    up = {seed: 2 - score for seed, score in CHAMPION.items()}
    for candidate in ({0: 1.02}, {0: 0.98}, {0: 0.98, 1: 0.981}):
        mirrored = {seed: 2 - score for seed, score in candidate.items()}
        one = Confirm().decide(evidence(candidate))
        other = Confirm().decide(evidence(mirrored, up, direction="maximize"))
        assert one.action == other.action
        assert one.delta == pytest.approx(other.delta)
    known = {"chosen_by": 2, "dropped": [(0, 0.9985), (1, 1.002)]}
    one = estimate_effect(evidence({0: 0.998}, **known))
    known["dropped"] = [(0, 1.0015), (1, 0.998)]
    other = estimate_effect(evidence({0: 1.002}, up, direction="maximize", **known))
    assert one.delta == pytest.approx(other.delta) and one.champion == pytest.approx(
        2 - other.champion
    )


def test_min_effect_asks_for_more():
    candidate = {0: 0.995, 1: 0.9952, 2: 0.9948}
    assert Confirm().decide(evidence(candidate)).action == "keep"
    assert Confirm(min_effect=0.005).decide(evidence(candidate)).action == "discard"


def test_failed_score_is_discarded():
    assert Confirm().decide(evidence({0: 0.98, 1: math.nan})).action == "discard"


def test_deterministic_scores_cost_no_repeats():
    policy, champion = Confirm(), {0: 10.0}
    for candidate, lines, action in [(9.0, 5, "keep"), (10.0, 0, "discard"), (11.0, -5, "discard")]:
        decision = policy.decide(
            evidence({0: candidate}, champion, deterministic=True, lines_delta=lines)
        )
        assert decision.action == action
    simpler = policy.decide(evidence({0: 10.0}, champion, deterministic=True, lines_delta=-1))
    assert simpler.action == "keep" and simpler.reason.startswith("simpler")
    exact = policy.decide(evidence({0: 9.0}, {0: 10.0, 1: 10.0, 2: 10.0}, noise=Noise(0.0, 2)))
    assert exact.action == "keep"


def test_repeats_that_agree_exactly_have_no_noise_whatever_their_digits():
    for score in (0.43517021276595746, 1 / 3, 0.1, 1e-300, -7.7):
        noise = Noise.pooled([[score] * 3])
        assert (noise.sd, noise.dof) == (0.0, 2.0)


def test_identical_score_on_the_same_seed_is_no_effect():
    assert "no effect" in Confirm().decide(evidence({1: 1.001})).reason
    assert Confirm().decide(evidence({1: 1.001}, lines_delta=-3)).action == "keep"
    # A coarse score ties by chance.
    coarse = {0: 0.5, 1: 0.5, 2: 0.52}
    tie = Confirm().decide(evidence({0: 0.5}, coarse, noise=Noise(0.02, 10)))
    assert "no effect" not in tie.reason


def test_equal_and_fewer_lines_is_simpler():
    equal = {seed: score + 0.00002 for seed, score in CHAMPION.items()}
    assert Confirm().decide(evidence(equal)).action == "discard"
    kept = Confirm().decide(evidence(equal, lines_delta=-4))
    assert kept.action == "keep" and kept.reason.startswith("simpler: 4 lines fewer")
    worse = {seed: score + 0.002 for seed, score in CHAMPION.items()}
    assert Confirm().decide(evidence(worse, lines_delta=-4)).action == "discard"


def test_a_far_pair_is_repeated_before_it_decides():
    decision = Confirm().decide(evidence({0: 0.996, 1: 1.03}))
    assert decision.action == "measure"


def test_unstable_candidate_is_judged_by_its_own_scatter():
    wild = {0: 0.97, 1: 1.02, 2: 0.98, 3: 0.955, 4: 1.01, 5: 1.0}
    assert estimate_effect(evidence(wild)).se > 0.005


def test_correlated_seeds_are_paired():
    candidate = {seed: CHAMPION[seed] - 0.0008 for seed in (0, 1, 2)}
    plain = estimate_effect(evidence(candidate))
    paired = estimate_effect(evidence(candidate, noise=Noise(0.002, 20, correlation=0.9)))
    assert paired.se < plain.se / 2
    assert paired.delta == pytest.approx(0.0008, abs=2e-4)


@pytest.mark.parametrize(
    "arguments", [{"confidence": 1.0}, {"max_replicates": 1}, {"min_effect": -1.0}]
)
def test_senseless_settings_are_refused(arguments):
    with pytest.raises(ValueError):
        Confirm(**arguments)


# Noise


def test_pooling_adds_degrees_of_freedom():
    noise = Noise.pooled([[1.0, 1.002, 0.998], [2.0, 2.002], [3.0]])
    assert noise.dof == 3
    assert noise.sd == pytest.approx(math.sqrt((8e-6 + 2e-6) / 3))
    with pytest.raises(ValueError):
        Noise.pooled([[1.0]])
    prior = Noise(0.002, 4)
    assert Noise.pooled([], prior=prior) == prior


def test_an_odd_run_does_not_make_the_noise():
    calm = [[1.0, 1.002, 0.998], [1.1, 1.101], [0.9, 0.902, 0.899]]
    with_odd = [*calm, [1.0, 1.03], [1.2, 1.201, 1.199, 1.2005, 1.23]]
    assert Noise.pooled(with_odd).sd < 2 * Noise.pooled(calm).sd


def test_correlation_is_drawn_to_the_prior():
    alike = [([1.0, 1.1, 1.3, 0.9], [2.0, 2.1, 2.3, 1.9]), ([1.0, 0.8, 1.2], [1.1, 0.9, 1.3])]
    assert Noise.pooled([[1.0, 1.1, 1.3]], alike).correlation > 0.4
    assert Noise.pooled([[1.0, 1.1]], prior=Noise(0.0, 0.0, 0.5)).correlation == 0.5
    unlike = [([1.0, 1.1, 1.3, 0.9], [2.0, 1.9, 2.0, 2.1])]
    assert Noise.pooled([[1.0, 1.1, 1.3]], unlike).correlation == 0.0


def test_students_tail_against_its_table():
    # Quantiles of Student's t at 5% and 1%, one-sided.
    for dof, five, one in [(2, 2.920, 6.965), (4, 2.132, 3.747), (10, 1.812, 2.764)]:
        assert normal_equivalent(five, dof) == pytest.approx(1.645, abs=0.02)
        assert normal_equivalent(one, dof) == pytest.approx(2.326, abs=0.06)


def test_location_and_oddest():
    assert location([1.0, 3.0], 1.0) == 2.0
    assert location([0.0, 0.1, -0.1, 0.05, 50.0], 0.1) == pytest.approx(0.0125, abs=0.01)
    index, p = oddest([1.0, 1.001, 1.03, 0.999, 1.0005])
    assert index == 2 and p < 0.02
    assert oddest([1.0, 2.0])[1] == 1.0


# Error rates, by the benchmark in a small size


@pytest.mark.parametrize("noise_name", ["gaussian", "outliers", "heavy_tails"])
def test_no_ops_are_rarely_kept(bench, noise_name):
    draw = getattr(bench, noise_name)
    confirm = bench.single_decisions(Confirm(), draw, 0.0, 3000, seed=1)
    assert confirm["kept"]["share"] <= 0.05
    assert 0.4 < bench.single_decisions(Greedy(), draw, 0.0, 500, seed=1)["kept"]["share"] < 0.6
    stream = bench.noop_studies(Confirm(), draw, 20, 50, seed=1)
    assert stream["kept"]["share"] <= 0.03


def test_asked_confidence_is_kept(bench):
    for confidence, at_most in [(0.9, 0.1), (0.99, 0.014)]:
        policy = Confirm(confidence=confidence)
        row = bench.single_decisions(policy, bench.gaussian, 0.0, 3000, seed=2)
        assert row["kept"]["share"] <= at_most


def test_real_improvements_are_found_and_harm_is_not_kept(bench):
    rows = {
        effect: bench.single_decisions(Confirm(), bench.gaussian, effect, 400, seed=3)
        for effect in (-1.0, 1.0, 2.0, 4.0)
    }
    assert rows[-1.0]["kept"]["share"] <= 0.02
    assert rows[2.0]["kept"]["share"] > 0.55 and rows[4.0]["kept"]["share"] > 0.95
    assert rows[1.0]["kept"]["share"] > 0.15


def test_simpler_at_the_margin_is_rarely_kept(bench):
    row = bench.simpler_edits(Confirm(), bench.gaussian, -1.0, 1500, seed=4)
    assert row["kept"]["share"] <= 0.05


def test_confirm_wins_at_equal_compute(bench):
    policies = {"confirm": Confirm(), "greedy": Greedy()}
    calm = bench.final_quality(policies, bench.gaussian, bench.Proposals(), 150, 100, seed=5)
    assert calm["confirm_minus_greedy"] > 2 * calm["se"]
    assert calm["confirm"]["no_ops_kept"] <= 0.04
    wild = bench.final_quality(policies, bench.heavy_tails, bench.Proposals(), 60, 100, seed=5)
    assert wild["confirm_minus_greedy"] > 2 * wild["se"]
