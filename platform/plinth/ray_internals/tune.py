"""Private names of Ray Tune."""

from __future__ import annotations

from typing import Any


def hand_no_keys_to_trials() -> None:
    """Let Tune, in this process, hand its trials only what the user has set and what is no key.

    Into their runtime environment it copies this process's AWS keys, which Ray then writes to its logs
    (findings/ray-tune-logs-aws-keys.sh). What is there without the user's doing goes, too: all that a trial
    starts inherits the environment, and without one its processes can be ones that Ray has ready, which saves
    each of them a second.
    """
    from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR
    from ray.tune.execution import class_cache

    names = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE = names - {WORKER_GROUP_START_TIMEOUT_S_ENV_VAR}  # trials set it
    class_cache.DEFAULT_ENV_VARS = {}


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
