"""Search over upper-case constants with Optuna: no model, no key, a real hyperparameter search.

    proposer = SearchProposer(hints={"DEPTH": Range(2, 16)}, valid=check, seed=1)

Each proposal changes one to three constants of the champion to values in their neighbourhood, so
its effect can be told from the rest; which ones is drawn, with a liking for those that are new
or have helped. Optuna's TPE draws the values from all effects seen (candidate minus champion):
pruned trials count as bad, crashed ones as worse. Where a search has few numbers, CMA-ES over them
all follows (`method="auto"`, after 40 results) or can be asked for (`method="cmaes"`). What is no
number stays with TPE, whose share of the proposals is then what it has of the constants.

There is no state but the trials observed: what a trial changed stands in its description
("DEPTH: 8 -> 6; MATRIX_LR: 0.04 -> 0.05"), so a search resumes from the ledger and is
deterministic by its seed.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.engine.constants import apply_constants, constants_of, literal
from autoresearch.engine.proposers.base import (
    EXHAUSTED,
    FAILED,
    NO_COST,
    REFUSED,
    Proposal,
    ProposalRequest,
    ProposerOptions,
    artifact_files,
)
from autoresearch.engine.proposers.samplers import (
    CMAES_MOST,
    PENDING,
    Change,
    Outcome,
    Tpe,
    draw_cmaes,
    fits_cmaes,
    numeric,
)
from autoresearch.engine.proposers.space import Dimension, Hint, build_space
from autoresearch.engine.trial import Trial

METHODS = ("auto", "tpe", "cmaes")
CMAES_AFTER = 40  # results; below, TPE makes more of each
DRAWS = 300  # attempts to find a valid and new change
SIZES = (1, 1, 1, 2, 2, 3)  # how many constants to change, as drawn
_CHANGE = re.compile(r"([A-Z][A-Z0-9_]*): (.+?) -> (.+?)(?=; [A-Z][A-Z0-9_]*: |$)")

Valid = Callable[[Mapping[str, Any]], "str | None"]


def describe(changes: Sequence[Change]) -> str:
    """`DEPTH: 8 -> 6; MATRIX_LR: 0.04 -> 0.05`."""
    return "; ".join(f"{name}: {literal(old)} -> {literal(new)}" for name, old, new in changes)


def parse_changes(description: str) -> tuple[Change, ...]:
    """The changes that a description states, () when it is not one of `describe`'s."""
    changes = []
    try:
        for name, old, new in _CHANGE.findall(description):
            changes.append((name, ast.literal_eval(old), ast.literal_eval(new)))
    except (ValueError, SyntaxError):
        return ()
    return tuple(changes) if describe(changes) == description else ()


class SearchProposer:
    """Proposes new values for constants of one artifact.

    `hints` say where a constant may go (space.Range, Choices, Fixed), `only` which ones to search,
    `valid` why a set of constants can't work (None: it can). `file` is the artifact, the first
    Python file among them unless given. Raises ProposerOptions for unknown options.
    """

    name = "search"
    instant = True

    def __init__(
        self,
        hints: Mapping[str, Hint] | None = None,
        valid: Valid | None = None,
        *,
        seed: int = 0,
        method: str = "auto",
        direction: str = "minimize",
        only: str | Sequence[str] | None = None,
        max_changes: int = 3,
        file: str | None = None,
        history: Iterable[Trial] = (),
    ) -> None:
        if method not in METHODS:
            raise ProposerOptions(f"search has no method {method!r}", f"one of {METHODS}")
        if direction not in ("minimize", "maximize"):
            raise ProposerOptions(f"unknown direction {direction!r}", "minimize or maximize")
        if not 1 <= max_changes <= 3:
            raise ProposerOptions(f"max_changes is 1 to 3, not {max_changes}")
        self._hints = dict(hints or {})
        self._valid = valid or (lambda constants: None)
        self._seed = seed
        self._method = method
        self._sign = 1.0 if direction == "minimize" else -1.0
        if isinstance(only, str):  # from a command line: "MATRIX_LR,DEPTH"
            only = [name.strip() for name in only.split(",")]
        self._only = None if only is None else tuple(only)
        self._max_changes = max_changes
        self._file = file
        self._outcomes: list[Outcome] = []
        self._issued: set[str] = set()
        self._tpe = Tpe()
        for trial in history:
            self.observe(trial)

    # -- the proposer's interface ------------------------------------------------------------------

    def propose(self, request: ProposalRequest) -> Proposal:
        """Write new values into the artifact. It does not mend: `attempt` 1 and 2 are refused."""
        begin = time.monotonic()
        if request.attempt:
            return _none("a search does not mend a failed change", REFUSED)
        path = self._artifact(request)
        if path is None:
            return _none("no artifact has upper-case constants", EXHAUSTED)
        try:
            source = path.read_bytes().decode("utf-8")
            constants = constants_of(source)
        except (SyntaxError, UnicodeDecodeError) as error:
            return _none(f"{path.name} does not parse: {error}", FAILED)
        if not self._space(constants):
            which = "no constant" if self._only is None else f"none of {', '.join(self._only)}"
            has = ", ".join(constants)
            return _none(f"{which} can be searched; {path.name} has {has}", EXHAUSTED)
        changes = self.suggest(constants, request.seed, request.in_flight)
        if not changes:
            return _none(f"no valid and new change found in {DRAWS} draws", EXHAUSTED)
        edited = apply_constants(source, {name: new for name, _, new in changes})
        path.write_bytes(edited.encode("utf-8"))
        description = describe(changes)
        self._issued.add(description)
        return Proposal(
            description=description,
            cost=NO_COST,
            seconds=time.monotonic() - begin,
            changed=(path.relative_to(request.folder).as_posix(),),
            details={"changes": {name: new for name, _, new in changes}},
        )

    def observe(self, trial: Trial) -> None:
        """Learn from a trial; those of other proposers tell nothing unless they state changes."""
        changes = parse_changes(trial.description)
        if not changes:
            return
        status = str(getattr(trial.status, "value", trial.status)).lower()
        state = {
            "keep": "complete",
            "discard": "complete",
            "pruned": "pruned",
            "crash": "failed",
        }.get(status, "ignored")
        # What a change to another program came to against the champion isn't the change's effect.
        if state == "complete" and (trial.delta is None or trial.start is not None):
            state = "ignored"
        loss = None if trial.delta is None else self._sign * trial.delta
        self._outcomes.append(Outcome(changes, state, loss, kept=status == "keep"))
        if status == "noisy":
            self._issued.discard(trial.description)
        else:
            self._issued.add(trial.description)

    # -- what to change ----------------------------------------------------------------------------

    def suggest(
        self, constants: Mapping[str, Any], seed: int = 0, in_flight: Sequence[str] = ()
    ) -> tuple[Change, ...]:
        """Changes to these constants of a champion: valid, not tried before; () for none.

        in_flight: descriptions of trials under way. Until their outcome is known, what they change
        counts as if it were no good, so that others look elsewhere.
        """
        space = self._space(constants)
        if not space:
            return ()
        self._issued.update(in_flight)  # also of an earlier process
        pending = [
            Outcome(found, PENDING, None) for found in map(parse_changes, in_flight) if found
        ]
        outcomes = [*self._outcomes, *pending]
        rng = random.Random(self._derive(seed))
        if self._wants_cmaes(space) and rng.random() * len(space) < len(numeric(space)):
            candidates = draw_cmaes(space, constants, outcomes, rng.randrange(2**31))
        else:
            seed = rng.randrange(2**31)
            draw = self._tpe.draws(space, constants, self._outcomes, pending, seed)
            candidates = (draw(self._pick(space, outcomes, rng)) for _ in range(DRAWS))
        for drawn in itertools.islice(candidates, DRAWS):
            changes = tuple(
                (name, constants[name], value)
                for name, value in drawn.items()
                if literal(value) != literal(constants[name])
            )
            if self._acceptable(changes, constants):
                return changes
        return ()

    def _derive(self, seed: int) -> int:
        """A seed of this proposal: the same after a restart with the same trials observed."""
        text = f"{self._seed}/{seed}/{len(self._outcomes)}/{len(self._issued)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def _space(self, constants: Mapping[str, Any]) -> dict[str, Dimension]:
        space = build_space(constants, self._hints)
        if self._only is not None:
            space = {name: item for name, item in space.items() if name in self._only}
        return {name: item for name, item in space.items() if item.around(constants[name])}

    def _artifact(self, request: ProposalRequest) -> Path | None:
        names = [self._file] if self._file else artifact_files(request.folder, request.artifacts)
        for name in names:
            path = request.folder / name
            if path.suffix != ".py" or not path.is_file():
                continue
            try:
                if constants_of(path.read_bytes().decode("utf-8")):
                    return path
            except (SyntaxError, UnicodeDecodeError):
                return path  # propose says what is wrong with it
        return None

    def _pick(
        self, space: Mapping[str, Dimension], outcomes: Sequence[Outcome], rng: random.Random
    ) -> list[str]:
        """One to three names; untried ones and those that helped are likelier."""
        count = min(rng.choice(SIZES), self._max_changes, len(space))
        tries = dict.fromkeys(space, 0)
        kept = dict.fromkeys(space, 0)
        for outcome in outcomes:
            for name, _, _ in outcome.changes:
                if name in space:
                    tries[name] += outcome.state != "ignored"
                    kept[name] += outcome.kept
        left = list(space)
        names: list[str] = []
        while len(names) < count:
            # The mean of a Beta(1, 2) prior with these results: 1/3 untried, falling with misses.
            weights = [(1 + kept[name]) / (3 + tries[name]) for name in left]
            name = rng.choices(left, weights)[0]
            left.remove(name)
            names.append(name)
        return sorted(names, key=list(space).index)

    def _acceptable(self, changes: tuple[Change, ...], constants: Mapping[str, Any]) -> bool:
        if not changes or describe(changes) in self._issued:
            return False
        if parse_changes(describe(changes)) != changes:
            return False  # its description could not be read back from the ledger
        return self._valid({**constants, **{name: new for name, _, new in changes}}) is None

    def _wants_cmaes(self, space: Mapping[str, Dimension]) -> bool:
        fits = fits_cmaes(space)
        if self._method == "cmaes" and not fits:
            raise ProposerOptions(
                f"CMA-ES needs 2 to {CMAES_MOST} numbers to search; this search has "
                + ", ".join(f"{name} ({item.kind})" for name, item in space.items()),
                "name them with `only`, or use method tpe",
            )
        results = sum(outcome.state == "complete" for outcome in self._outcomes)
        return fits and (
            self._method == "cmaes" or (self._method == "auto" and results >= CMAES_AFTER)
        )


def _none(problem: str, kind: str) -> Proposal:
    return Proposal("", cost=NO_COST, problem=problem, problem_kind=kind)
