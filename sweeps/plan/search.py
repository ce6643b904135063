"""Optuna as the optimiser of a sweep: it suggests values (TPE) and says which runs to stop early (hyperband).

Which runs there are and who runs them is the queue's; here a run is a number, that of its trial in an Optuna study.
Nothing is kept in memory that the study does not hold, so any number of processes may open the same one.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from callbacks.keys import Keys
from sweeps.plan.distributions import draw
from sweeps.plan.draws import NothingNewError, reachable, size
from sweeps.plan.goal import Hyperband, Metric
from sweeps.plan.space import axes, compatible
from sweeps.plan.spec import Sweep, budget, replicates, searched

_METRIC = "metric"  # study attribute: what its values are
_BRACKET = "hyperband:"  # trial attribute, followed by the epoch: whether the run was to stop there
_ASKED_AGAIN, _DRAWN = 10, 10_000  # suggestions, then draws, before there is taken to be no new run
_STARTUP = 10  # suggestions at random before the first by TPE, at most


@dataclass(frozen=True)
class Suggestion:
    """Values to try: of every parameter of the sweep but a `seed` with several, since it is run with all of them.

    `number` is the trial of the first run with them; `Search.adopt` gives those of the others.
    """

    number: int
    values: dict[str, Any]


class Search:
    """The optimiser of one sweep.

    Bayes is Optuna's tree-structured Parzen estimator in its multivariate form, where W&B has a Gaussian process:
    it takes lists, whole numbers and many agents alike. Runs that are under way count as bad, so that agents do not
    all try the same. Runs of one suggestion with other seeds are further observations of the same place.

    Args:
        sweep: what is searched, with `--set` applied.
        storage: Optuna's.
        study_name: a study of its own; trials that others put there would be taken for runs.

    Raises:
        UserError: the study was begun with another metric or other values, which it cannot take over.
    """

    def __init__(self, sweep: Sweep, storage: BaseStorage, study_name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep, self.storage = sweep, storage
        self.metric = sweep.metric or Metric(Keys.VAL_LOSS)
        self.stopping = Hyperband.of(sweep.early_terminate) if sweep.early_terminate else None
        self.axes = axes(sweep)
        self.study = optuna.create_study(
            storage=storage,
            study_name=study_name,
            sampler=_PerTrial(sweep),
            direction=self.metric.goal,
            load_if_exists=True,
        )
        self._id = storage.get_study_id_from_name(study_name)
        self._take_over()

    def _take_over(self) -> None:
        """Compare with what the study holds: its metric, and for each parameter the first distribution it had."""
        known: dict[str, BaseDistribution] = {}
        for trial in self._trials():
            known = trial.distributions | known
        changed = [path for path in known if path in self.axes and not compatible(known[path], self._kind(path))]
        if self.sweep.method != "bayes":  # what is written down of its values is to be looked at only
            self.axes = {path: axis for path, axis in self.axes.items() if path not in changed}
        elif changed:
            at = self.sweep.parameters[changed[0]].at
            problem = f'{changed[0]} had other values or another distribution when sweep "{self.sweep.name}" began'
            raise self.sweep.source.error(at, f"{problem}; give the changed sweep another name")
        if self.sweep.method == "bayes" or self.stopping:
            self._check_metric()

    def _check_metric(self) -> None:
        begun = self.study.user_attrs.get(_METRIC, self.metric.name)
        minimises = self.study.direction == StudyDirection.MINIMIZE
        if begun != self.metric.name or minimises != (self.metric.goal == "minimize"):
            goal = "minimize" if minimises else "maximize"
            problem = f'sweep "{self.sweep.name}" began with metric: {{name: {begun}, goal: {goal}}}'
            raise self.sweep.source.error(("metric",), f"{problem}; give the changed sweep another name")
        if _METRIC not in self.study.user_attrs:
            self.study.set_user_attr(_METRIC, begun)

    def _kind(self, path: str) -> BaseDistribution:
        return self.axes[path].distribution

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    # --- runs --------------------------------------------------------------------------------------------------

    def ask(self) -> Suggestion:
        """Values for the next run of a bayes sweep; its trial is under way from now on."""
        if self.sweep.method != "bayes":
            raise ValueError(f"method: {self.sweep.method} has its runs from sweeps.plan.spec.expand")
        trial = self.study.ask({path: self._kind(path) for path in self.axes})
        return Suggestion(trial.number, self._values(trial.params))

    def ask_for_new(self, run_of: Callable[[Mapping[str, Any]], str | None], known: Collection[str]) -> Suggestion:
        """As `ask`, but what comes to a run that there is already, or to none that can be, is asked again.

        What TPE likes it likes again, where parameters have few values: after some asking it is chance that chooses.

        Args:
            run_of: the run's id for a suggestion's values; None if there can be no such run.
            known: ids of the runs that there are.

        Raises:
            NothingNewError: all are there that the parameters allow, or many draws found no other.
        """
        some_left = len(known) < size(searched(self.sweep))
        for _ in range(_ASKED_AGAIN if some_left else 0):
            suggestion = self.ask()
            mine = run_of(suggestion.values)
            if mine is not None and mine not in known and mine not in self._under_way(run_of, suggestion.number):
                return suggestion
            self.fail(suggestion.number)
        for values in islice(reachable(searched(self.sweep), self.sweep.digest), _DRAWN if some_left else 0):
            mine = run_of(values)
            if mine is not None and mine not in known:
                return Suggestion(self.adopt(values), values)
        raise NothingNewError(len(known) * len(replicates(self.sweep)))

    def _under_way(self, run_of: Callable[[Mapping[str, Any]], str | None], but: int) -> set[str | None]:
        """Runs of other trials that are not over: another process may have been given one a moment ago."""
        trials = (one for one in self._trials() if one.state == TrialState.RUNNING and one.number != but)
        return {run_of(self._values(one.params)) for one in trials if set(self.axes) <= set(one.params)}

    def _values(self, places: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a suggestion at a trial's places on the axes."""
        values = {}
        for path, parameter in self.sweep.parameters.items():
            if path in self.axes:
                values[path] = self.axes[path].value(places[path])
            elif parameter.fixed:
                values[path] = draw(parameter, 0.0)
        return values

    def adopt(self, values: Mapping[str, Any]) -> int:
        """The trial of a run whose values were decided elsewhere: by a grid, by chance, or for another seed.

        A value that its parameter does not have, of an earlier version of the file, is left out of the trial.
        """
        positions = {}
        for path, axis in self.axes.items():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                positions[path] = axis.position(values[path])
        kinds = {path: self._kind(path) for path in positions}
        template = create_trial(state=TrialState.RUNNING, params=positions, distributions=kinds)
        return self.storage.get_trial(self.storage.create_new_trial(self._id, template)).number

    def report(self, number: int, epoch: int, value: float | None) -> bool:
        """Take note of the metric after an epoch; whether the run shall be stopped early.

        An epoch's first value stays, as does the decision at a bracket: a resumed run that reports again hears the
        same. Epoch 0, the untrained model, does not count. None and NaN are the worst value there is.
        """
        trial_id, trial = self._trial(number)
        told = self.stopping is not None and any(
            trial.user_attrs.get(f"{_BRACKET}{bracket}", False) for bracket in self.stopping.brackets(epoch)
        )
        if epoch < 1 or trial.state.is_finished() or told:
            return told
        try:
            if epoch not in trial.intermediate_values:
                self.storage.set_trial_intermediate_value(trial_id, epoch, self._comparable(value))
            return self._decide(number, trial_id, epoch)
        except UpdateFinishedTrialError:  # another process took the run for lost and closed it
            return told

    def _decide(self, number: int, trial_id: int, epoch: int) -> bool:
        """At a bracket, compare the run with those that have come to it, and write the decision down."""
        mark = f"{_BRACKET}{epoch}"
        if self.stopping is None or epoch not in self.stopping.brackets(epoch):
            return False
        trials = self._trials()
        own = next(trial for trial in trials if trial.number == number)
        if mark in own.user_attrs:
            return bool(own.user_attrs[mark])
        rivals = [
            self.metric.cost(trial.intermediate_values[epoch])
            for trial in trials
            if trial is not own and trial.state != TrialState.FAIL and epoch in trial.intermediate_values
        ]
        history = {at: self.metric.cost(value) for at, value in own.intermediate_values.items()}
        stop = self.stopping.stops(history, epoch, rivals)
        self.storage.set_trial_user_attr(trial_id, mark, stop)
        return stop

    def finish(self, number: int, value: float | None, *, stopped: bool = False) -> None:
        """The run is done: with its metric, None or NaN counting as the worst, or stopped early as `report` said."""
        values = None if stopped and value is None else [self._comparable(value)]
        self._close(number, TrialState.PRUNED if stopped else TrialState.COMPLETE, values)

    def fail(self, number: int) -> None:
        """The run will not be finished under this trial; it no longer counts for anything."""
        self._close(number, TrialState.FAIL, None)

    def reached_target(self) -> bool:
        """Whether a run has come to the metric's `target`: then W&B starts no more."""
        if self.metric.target is None:
            return False
        target = self.metric.cost(self.metric.target)
        values = (
            value
            for trial in self._trials()
            if trial.state != TrialState.FAIL
            for value in (*trial.intermediate_values.values(), trial.value)
        )
        return any(self.metric.cost(value) <= target for value in values)

    def _trial(self, number: int) -> tuple[int, FrozenTrial]:
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._id, number)
        return trial_id, self.storage.get_trial(trial_id)

    def _close(self, number: int, state: TrialState, values: list[float] | None) -> None:
        trial_id, _ = self._trial(number)
        with contextlib.suppress(UpdateFinishedTrialError):  # closed before, perhaps by another process: so it stays
            self.storage.set_trial_state_values(trial_id, state, values)

    def _comparable(self, value: float | None) -> float:
        """A value that Optuna can compare: the worst for none."""
        if value is None or math.isnan(value):
            return math.inf if self.study.direction == StudyDirection.MINIMIZE else -math.inf
        return float(value)


class _PerTrial(BaseSampler):
    """TPE whose random numbers are a function of the sweep and the trial's number alone.

    A resumed study, and agents that start together on an empty one, would repeat each other's draws with any seed of
    the process.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.digest = sweep.digest
        self.startup = self._startup(sweep)
        self.inner = self._tpe(0)

    @staticmethod
    def _startup(sweep: Sweep) -> int:
        """Finished runs before TPE takes over: a quarter of the budget, and enough for a first picture."""
        if sweep.method != "bayes":
            return _STARTUP
        return len(replicates(sweep)) * min(_STARTUP, max(3, budget(sweep) // 4))

    def _tpe(self, number: int) -> TPESampler:
        seed = hashlib.sha256(f"{self.digest}/trial/{number}".encode()).digest()
        return TPESampler(
            seed=int.from_bytes(seed[:4]), n_startup_trials=self.startup, multivariate=True, constant_liar=True
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin a trial's own random numbers."""
        self.inner = self._tpe(trial.number)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that this trial's TPE models together."""
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Positions that this trial's TPE suggests for parameters modelled together."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A position that this trial's TPE suggests for a parameter by itself."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)
