"""How a search draws values: Optuna's TPE, and CMA-ES, from the outcomes of earlier trials.

Both are made of the outcomes alone, so that they have no state to lose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.engine.proposers.space import Dimension

if TYPE_CHECKING:
    import optuna

CMAES_MOST = 6  # constants; more want more trials than a night has
CMAES_SIGMA = 0.2  # of a neighbourhood's width
STARTUP = 5  # results of a constant before TPE models it; uniform before
CROWD = 2000  # trials of Optuna's that don't count any more, from which it is told all anew

PENDING = "pending"  # the state of a change whose trial is under way

Change = tuple[str, Any, Any]  # name, old value, new value


@dataclass(frozen=True)
class Outcome:
    """What became of a change. `loss` is its effect with the sign of a loss, None if unmeasured."""

    changes: tuple[Change, ...]
    state: str  # "complete", "pruned", "failed", "ignored" or PENDING
    loss: float | None
    kept: bool = False


class Tpe:
    """Optuna's TPE: draws values for named constants, each modelled alone.

    It lives in memory and holds every usable outcome. What it was told for one proposal stays for
    the next, as telling an outcome takes longer than all else; what is drawn is the same as of one
    that is made anew.
    """

    def __init__(self) -> None:
        self._study: optuna.Study | None = None
        self._space: dict[str, Dimension] = {}
        self._told = 0  # outcomes
        self._numbers = 0  # trials of Optuna's
        self._passing: list[int] = []  # of them those that were drawn, or pending, last time

    def draws(
        self,
        space: Mapping[str, Dimension],
        constants: Mapping[str, Any],
        outcomes: Sequence[Outcome],
        pending: Sequence[Outcome],
        seed: int,
    ) -> Callable[[Sequence[str]], dict[str, Any]]:
        """A function that draws values in the neighbourhood of `constants`.

        outcomes: those of the last time, and what came since. What is pending counts among the
        worse half (TPE's constant liar).
        """
        import optuna

        study = self._study_of(space, outcomes)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, multivariate=False, constant_liar=bool(pending)
        )
        for outcome in pending:
            if self._tell(study, outcome):
                self._passing.append(self._numbers - 1)

        def draw(names: Sequence[str]) -> dict[str, Any]:
            trial = study.ask({name: _distribution(space[name], constants[name]) for name in names})
            self._passing.append(trial.number)
            self._numbers = trial.number + 1
            return {name: space[name].decode(trial.params[name]) for name in names}

        return draw

    def _study_of(
        self, space: Mapping[str, Dimension], outcomes: Sequence[Outcome]
    ) -> optuna.Study:
        """A study that was told these outcomes and nothing else that counts."""
        import optuna

        study, crowded = self._study, self._numbers > 2 * self._told + CROWD
        if study is None or crowded or space != self._space or len(outcomes) < self._told:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            study = self._study = optuna.create_study(direction="minimize")
            self._space, self._told, self._numbers, self._passing = dict(space), 0, 0, []
        for number in self._passing:
            study.tell(number, state=optuna.trial.TrialState.FAIL)  # as if it weren't there
        self._passing.clear()
        for outcome in outcomes[self._told :]:
            self._tell(study, outcome)
        self._told = len(outcomes)
        return study

    def _tell(self, study: optuna.Study, outcome: Outcome) -> bool:
        """Have an outcome known; whether it says anything."""
        frozen = _frozen(outcome, self._space)
        if frozen is None:
            return False
        study.add_trial(frozen)
        self._numbers += 1
        return True


def numeric(space: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """The part of a space that has an order and a distance, which is what CMA-ES can search."""
    return {name: item for name, item in space.items() if item.kind != "choice"}


def fits_cmaes(space: Mapping[str, Dimension]) -> bool:
    """Whether CMA-ES can search the numeric part of this space: a few constants."""
    return 2 <= len(numeric(space)) <= CMAES_MOST


def draw_cmaes(
    space: Mapping[str, Dimension],
    constants: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Points of CMA-ES around the champion, over all numeric constants at once, endlessly.

    Integers and powers of two are rounded, and a margin keeps them from freezing at one value
    (CMA-ES with margin, arXiv:2205.13482). Generations are told again from the results against
    this champion, whole ones only. Failed and pruned trials rank last.
    """
    import cmaes
    import numpy as np

    scales = {name: _Scale.of(item, constants[name]) for name, item in numeric(space).items()}
    optimizer = cmaes.CMAwM(
        mean=np.array([scale.unit(constants[name]) for name, scale in scales.items()]),
        sigma=CMAES_SIGMA,
        bounds=np.array([[0.0, 1.0]] * len(scales)),
        steps=np.array([scale.step for scale in scales.values()]),
        seed=seed,
    )
    told = [
        (np.array([scale.unit(values[name]) for name, scale in scales.items()]), loss)
        for values, loss in _whole_points(outcomes, constants, numeric(space))
    ]
    worst = max((loss for _, loss in told if loss is not None), default=0.0) + 1.0
    ranked = [(point, worst if loss is None else loss) for point, loss in told]
    size = optimizer.population_size
    for start in range(0, len(ranked) - size + 1, size):
        optimizer.tell(ranked[start : start + size])
    while True:
        point, _ = optimizer.ask()
        drawn = zip(scales.items(), point, strict=True)
        yield {name: scale.value(unit) for (name, scale), unit in drawn}


def _whole_points(
    outcomes: Sequence[Outcome], constants: Mapping[str, Any], space: Mapping[str, Dimension]
) -> Iterator[tuple[dict[str, Any], float | None]]:
    """Values of all of `space` with the loss, None for none: what changed every float in it.

    An integer that a point has in common with the champion stands in no description.
    """
    floats = {name for name, item in space.items() if item.kind == "float"}
    for outcome in outcomes:
        changed = {name: new for name, _, new in outcome.changes}
        known = outcome.state not in ("ignored", PENDING) and floats <= set(changed) <= set(space)
        if known and all(old == constants[name] for name, old, _ in outcome.changes):
            values = {name: changed.get(name, constants[name]) for name in space}
            yield values, outcome.loss if outcome.state == "complete" else None


@dataclass(frozen=True)
class _Scale:
    """A neighbourhood mapped to 0..1, on the dimension's own scale. `step` of integers, else 0."""

    dimension: Dimension
    low: float
    high: float
    log: bool
    step: float = 0.0

    @classmethod
    def of(cls, dimension: Dimension, value: Any) -> _Scale:
        bounds = dimension.around(value)
        if bounds is None:
            raise ValueError(f"{dimension.name} has no neighbourhood around {value}")
        low, high = float(bounds["low"]), float(bounds["high"])
        if dimension.kind == "float":
            return cls(dimension, low, high, dimension.log)
        if dimension.kind == "int" and dimension.log:  # its steps are uneven on this scale
            return cls(dimension, low - 0.5, high + 0.5, True)
        return cls(dimension, low, high, False, 1 / (high - low))

    def unit(self, value: Any) -> float:
        """0 at the low end, 1 at the high one; a value outside counts as the nearest inside."""
        parameter = float(self.dimension.encode(value) or 0)
        parameter = min(max(parameter, self.low), self.high)
        if self.log:
            return math.log(parameter / self.low) / math.log(self.high / self.low)
        return (parameter - self.low) / (self.high - self.low)

    def value(self, unit: float) -> Any:
        """The inverse of `unit`, as the constant has it."""
        unit = min(max(float(unit), 0.0), 1.0)
        if self.log:
            parameter = self.low * (self.high / self.low) ** unit
        else:
            parameter = self.low + unit * (self.high - self.low)
        if self.dimension.kind != "float":
            inside = min(max(parameter, math.ceil(self.low)), math.floor(self.high))
            parameter = round(inside)
        return self.dimension.decode(parameter)


def _distribution(dimension: Dimension, value: Any) -> optuna.distributions.BaseDistribution:
    """Optuna's distribution over the neighbourhood of a champion's value."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    bounds = dimension.around(value)
    if bounds is None:
        raise ValueError(f"{dimension.name} has no neighbourhood around {value}")
    if dimension.kind == "choice":
        return CategoricalDistribution(**bounds)
    if dimension.kind == "float":
        return FloatDistribution(**bounds, log=dimension.log)
    return IntDistribution(**bounds, log=dimension.log and dimension.kind == "int")


def _frozen(outcome: Outcome, space: Mapping[str, Dimension]) -> optuna.trial.FrozenTrial | None:
    """An outcome as Optuna's trial; None when it tells nothing about this space."""
    import optuna

    if outcome.state == "ignored":
        return None
    parameters: dict[str, Any] = {}
    distributions: dict[str, Any] = {}
    for name, old, new in outcome.changes:
        value = space[name].encode(new) if name in space else None
        if value is None or space[name].around(old) is None:
            continue
        distribution = _distribution(space[name], old)
        if distribution._contains(distribution.to_internal_repr(value)):
            parameters[name], distributions[name] = value, distribution
    if not parameters:
        return None
    # TPE ranks pruned trials behind complete ones, and those without a value last of all.
    complete = outcome.state == "complete"
    if outcome.state == PENDING:
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=parameters, distributions=distributions
        )
    pruned = outcome.state == "pruned" and outcome.loss is not None
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
        value=outcome.loss if complete else None,
        params=parameters,
        distributions=distributions,
        intermediate_values={0: outcome.loss} if pruned and outcome.loss is not None else None,
    )
