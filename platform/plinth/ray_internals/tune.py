"""Private names of Ray Tune."""

from __future__ import annotations

from typing import Any


def start_trials_without_environment() -> None:
    """Let Tune, in this process, start its trials without a runtime environment of their own.

    Into that environment it copies this process's AWS keys, which Ray then writes to its logs, and a variable
    for another framework. And all that a trial starts inherits the environment: none of its processes can
    then be one that Ray has ready, which costs each of them a second (findings/ray-tune-logs-aws-keys.sh).
    """
    from ray.tune.execution import class_cache

    class_cache.DEFAULT_ENV_VARS = {}
    class_cache.ENV_VARS_TO_PROPAGATE = set()


def population_training() -> Any:
    """Ray Tune's PopulationBasedTraining as a base class; `new_config` may change what a clone trains with.

    Tune offers `custom_explore_fn`, but that does not see the trial that the config is for.
    """
    from ray.tune.schedulers import PopulationBasedTraining

    class Population(PopulationBasedTraining):
        def new_config(self, trial: Any, config: dict[str, Any]) -> dict[str, Any]:
            return config

        def _get_new_config(self, trial: Any, trial_to_clone: Any) -> Any:
            config, operations = super()._get_new_config(trial, trial_to_clone)
            return self.new_config(trial, config), operations

    return Population
