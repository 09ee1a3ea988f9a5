"""`poma submit`: check a job, pack the code, send both to a cluster, follow what it prints.

The same command again resumes a run that ended or was stopped from its last checkpoint; while it is alive, a
second one is refused. Ctrl-C ends the watching, not the run. `poma runs show|logs|stop` need only the run's
folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from jobs.common.secrets import environment
from jobs.submit import kubernetes, whose
from jobs.submit import package as submit_package
from jobs.submit import submission as submit_job
from jobs.submit.job_server import JobServer, Target, find
from jobs.submit.submission import RUN, Submission
from plinth.errors import INTERRUPTED_EXIT_CODE, ConfigError
from plinth.units import MIB


def run(arguments: argparse.Namespace) -> int:
    """Submit a job, write its manifest, or attach to one; returns the exit code of the run.

    Raises:
        PlinthError: a mistake in the job or the cluster.
    """
    if arguments.attach is not None:
        if arguments.job is not None or arguments.render is not None:
            raise ConfigError("--attach goes with --cluster or --address alone.")
        return attach(arguments.attach, find(arguments.cluster, arguments.address))
    if arguments.job is None:
        raise ConfigError("There is no job to submit.", "Give a job file, or --attach ID.")
    variables = environment(arguments.env)
    submission = submit_job.resolve(arguments.job, arguments.overrides)
    if arguments.accept_changes and submission.kind != RUN:
        raise ConfigError(f"`poma {submission.kind}` has no --accept-changes.")
    if not arguments.skip_check:
        submit_job.check(submission, arguments.accept_changes)
    if arguments.render is not None:
        return kubernetes.write(arguments.render, submission, variables, arguments.accept_changes)
    return submit(
        submission,
        variables,
        find(arguments.cluster, arguments.address),
        arguments.accept_changes,
        arguments.detach,
        arguments.yes,
    )


def submit(
    submission: Submission,
    variables: dict[str, str],
    target: Target,
    accept_changes: bool,
    detach: bool,
    is_sure: bool,
) -> int:
    """Send a job and follow it; returns the exit code.

    Args:
        variables: of the driver and the workers.
        accept_changes: as of `poma pretrain`.
        detach: do not follow it.
        is_sure: the cluster is the right one, whoever answers; see `whose.make_sure`.

    Raises:
        ConfigError: it is alive already, or the cluster cannot be reached, or is not the user's.
    """
    server = JobServer(target)
    whose.make_sure(server.cluster(), is_sure, whose.asker())
    _refuse_second(server, submission, target)
    if submission.has_local_paths:
        print("the job names local folders: every node has to see the same ones", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        package = submit_package.build(Path(folder), submission.text)
        submission_id = server.submit(
            submission.name,
            entrypoint=submission.command(submit_package.JOB_FILE, accept_changes),
            runtime_env={"working_dir": str(package.path), "env_vars": variables},
            metadata={"kind": submission.kind, "result": submission.uri},
        )
    print(
        f"submitted {submission.uri} to {target.address} as {submission_id}, with {package.files} files of "
        f"code and job, {package.size_bytes / MIB:.2f} MiB",
        flush=True,
    )
    if detach:
        print(f"follow it: poma submit --attach {submission_id} {target.flag}")
        return 0
    return _follow(server, submission_id, target, is_new=True)


def attach(submission_id: str, target: Target) -> int:
    """Follow a job that was submitted before; returns its exit code."""
    server = JobServer(target)
    server.check_known(submission_id)
    return _follow(server, submission_id, target, is_new=False)


def _refuse_second(server: JobServer, submission: Submission, target: Target) -> None:
    if alive := server.alive(submission.name):
        stop = f", or stop it: poma runs stop {submission.uri}" if submission.kind == RUN else ""
        raise ConfigError(
            f"{submission.uri} is at work as {alive[-1].submission_id} ({alive[-1].status.value.lower()}).",
            f"Follow it: poma submit --attach {alive[-1].submission_id} {target.flag}{stop}.",
        )


def _follow(server: JobServer, submission_id: str, target: Target, is_new: bool) -> int:
    try:
        return server.follow(submission_id, is_new)
    except KeyboardInterrupt:
        print(f"\nthe job still runs; come back: poma submit --attach {submission_id} {target.flag}")
        return INTERRUPTED_EXIT_CODE
