"""The `poma` command: one subcommand per step of the lifecycle, in the order in which they are used."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from jobs.layout import STAGES
from plinth.errors import EXIT_CODE, INTERRUPTED_EXIT_CODE, PlinthError
from plinth.redaction import redact

RUN_SWEEP = "run"
CONFIGS = Path(__file__).parent / "configs"
EPILOG = """\
a job is a YAML file; key=value words after it override its keys:
  poma pretrain jobs/configs/pretrain.yaml optim.lr=3e-4 fit.workers=8
  poma config jobs/configs/pretrain.yaml --help-keys     every key with its meaning
an error that you can mend is one line and exit code 2; the same command run again resumes.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    sys.excepthook = _bug
    arguments = _parsed(_with_action(sys.argv[1:] if argv is None else list(argv)))
    try:
        result = arguments.run(arguments)
    except PlinthError as error:
        print(f"poma {arguments.command}: {redact(str(error))}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print(f"poma {arguments.command}: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:  # `poma ... | head`
        return 0
    return int(result or 0)


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug keeps its traceback, but not the secrets in it: Ray shows the last lines of a job to all."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def _parsed(argv: list[str]) -> argparse.Namespace:
    """The command line; key=value words may also stand after the options."""
    parser = _parser()
    arguments, late = parser.parse_known_args(argv)
    is_override = [not word.startswith("-") and "=" in word for word in late]
    if not all(is_override) or (late and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def _with_action(argv: list[str]) -> list[str]:
    """`poma sweep JOB` is `poma sweep run JOB`."""
    if argv[:1] == ["sweep"] and len(argv) > 1 and argv[1].endswith(".yaml"):
        return ["sweep", RUN_SWEEP, *argv[1:]]
    return argv


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="poma",
        description="Pretrain POMA-3D on point maps with Ray and DeepSpeed: kill it, resize it, same result.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, job: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if job:
            sub.add_argument("job", type=Path, help=f"job file, such as jobs/configs/{name}.yaml")
            sub.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the job's keys")
        return sub

    demo = command(
        "demo", "make rooms, train a teacher, pretrain both stages, evaluate, write a report", False
    )
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the demo's keys")
    demo.add_argument("--job", type=Path, default=CONFIGS / "demo.yaml", help="another file of the same kind")
    demo.set_defaults(run=partial(_run_job, "demo"))

    command("ingest", "read scans or rooms, choose views, write point-map shards").set_defaults(
        run=partial(_run_job, "ingest")
    )
    command(
        "lift", "predict depth and camera of captioned images, add them to a data set; resumes by itself"
    ).set_defaults(run=partial(_run_job, "lift"))
    command(
        "caption", "write captions with a vision-language model, keep the best; resumes by itself"
    ).set_defaults(run=partial(_run_job, "caption"))
    command("embed", "write a teacher's embeddings into the shards").set_defaults(
        run=partial(_run_job, "embed")
    )
    pretrain = command("pretrain", "run the warm-up and the main stage; resumes by itself")
    pretrain.add_argument(
        "--accept-changes", action="store_true", help="resume although the config differs from the run's"
    )
    pretrain.set_defaults(run=_pretrain)
    _add_sweep(command("sweep", "search the values of a job with Ray Tune; show, promote", job=False))
    command("evaluate", "zero-shot scene retrieval and a linear probe").set_defaults(
        run=partial(_run_job, "evaluate")
    )
    command("export", "write the target encoder as safetensors").set_defaults(run=partial(_run_job, "export"))
    _add_shards(command("shards", "look into a data set: inspect, verify, preview", job=False))
    _add_checkpoints(
        command("checkpoints", "a run's checkpoints: list, verify, repair, prune, pin", job=False)
    )
    _add_submit(command("submit", "send a job to a cluster and follow it; resumes by itself", job=False))
    _add_runs(command("runs", "how runs are doing: list, show, logs, stop", job=False))
    doctor = command("doctor", "what would go wrong, before anything is paid for", job=False)
    doctor.add_argument("job", type=Path, nargs="?", help="a pretraining job; this machine alone without one")
    doctor.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the job's keys")
    doctor.add_argument("--cluster", type=Path, help="cluster file, such as clusters/aws-h100.yaml")
    doctor.set_defaults(run=_doctor)
    _add_plan(command("plan", "memory, time, storage and cost of a job, before anything starts"))
    prove = command("prove-resume", "run a job, shortened, straight and with kills and resizes; compare")
    prove.add_argument("--steps", type=int, default=12, help="length of each stage (default 12)")
    prove.add_argument("--every", type=int, default=4, help="steps between checkpoints (default 4)")
    prove.add_argument("--folder", default="prove-resume", help="where its runs and the page go")
    prove.set_defaults(run=_prove)
    config = command("config", "print the resolved job, or every key with its meaning")
    config.add_argument("--help-keys", action="store_true", help="list keys, types, defaults and meanings")
    config.set_defaults(run=_config)
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", type=Path, help="cluster file, such as clusters/aws-h100.yaml")
    parser.add_argument("--prices", type=Path, help="price table; else the one beside the cluster file")
    parser.add_argument("--mfu", type=float, help="share of a GPU's peak that is assumed to be reached")
    parser.add_argument(
        "--assume", action="append", default=[], metavar="STAGE.samples=N",
        help="size of a data set that is not there yet; STAGE.views=N for its views",
    )  # fmt: skip
    parser.set_defaults(run=_plan)


def _add_shards(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("inspect", "what the data set holds: sizes, teacher, source, statistics"),
        ("verify", "check every shard against the manifest; exit code 2 when one is damaged"),
        ("preview", "write a contact sheet: colour, depth, point map, top view; what lift rejected"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("uri", help="a folder or s3://bucket/prefix; with #3, its version 3")
        _add_storage_flags(action)
        if name == "preview":
            action.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write")
            action.add_argument("--samples", type=int, default=4, help="how many scenes to show")
        action.set_defaults(run=_shards)


def _add_checkpoints(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument("uri", help="the run's folder: STORAGE/NAME")
        _add_storage_flags(sub)
        sub.set_defaults(run=_checkpoints)
        return sub

    action("list", "checkpoints of both stages with step, size and state")
    verify = action("verify", "compare every file with the hash in its record; exit code 2 on damage")
    verify.add_argument("--stage", choices=STAGES, help="only of this stage")
    verify.add_argument("--step", type=int, help="only this one")
    action("repair", "commit what was whole, take damaged ones out of use, remove what no record names")
    prune = action("prune", "delete all but those that are kept")
    prune.add_argument("--keep-last", type=int, default=3, help="newest to keep (default 3)")
    prune.add_argument("--keep-every", type=int, default=0, help="keep steps that this divides, too")
    prune.add_argument("--keep-best", type=int, default=0, help="keep so many of the lowest loss, too")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    pin = action("pin", "keep one whatever the settings say")
    pin.add_argument("stage", choices=STAGES)
    pin.add_argument("step", type=int)
    pin.add_argument("--reason", default="", help="why, for those who come later")
    pin.add_argument("--remove", action="store_true", help="let the settings decide again")


def _add_submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, nargs="?", help="job file of any kind but demo")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the job's keys")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--cluster", type=Path, help="cluster file, such as clusters/local.yaml")
    where.add_argument("--address", help="its dashboard, such as http://127.0.0.1:8265")
    where.add_argument("--render", type=Path, metavar="FILE", help="only write the Kubernetes manifest")
    parser.add_argument("--detach", action="store_true", help="do not follow what it prints")
    parser.add_argument("--attach", metavar="ID", help="follow one that was submitted before")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable there; not for secrets"
    )
    parser.add_argument("--accept-changes", action="store_true", help="as of poma pretrain")
    parser.add_argument("--skip-check", action="store_true", help="for storage that only the cluster reaches")
    parser.set_defaults(run=_submit)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="JOB | ACTION")
    start = actions.add_parser(RUN_SWEEP, help="run a sweep, the same as `poma sweep JOB`; resumes by itself")
    start.add_argument("job", type=Path, help="job file, such as jobs/configs/sweep.yaml")
    start.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the job's keys")
    for name, text in (
        ("show", "a line for each trial: values, metric, status, cost"),
        ("promote", "write a job of full length with the values of a trial"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("uri", help="the sweep's folder: STORAGE/NAME")
        _add_storage_flags(action)
        if name == "show":
            action.add_argument("--follow", action="store_true", help="until the sweep is over")
            continue
        action.add_argument("trial", help="its number, such as 003, or best")
        action.add_argument("--out", type=Path, default=Path("promoted.yaml"), help="job file to write")
        action.add_argument("--output", help="where its run goes; where the sweep is, when left out")
        action.add_argument("--with-checkpoint", action="store_true", help="start from the trial's weights")
    parser.set_defaults(run=_sweep)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, what, text in (
        ("list", "folder or URI that holds runs", "one line for each run"),
        ("show", "the run's folder: STORAGE/NAME", "status, ledger, checkpoints, incidents, failures"),
        ("logs", "the run's folder: STORAGE/NAME", "messages of every rank, and what failed first"),
        ("stop", "the run's folder: STORAGE/NAME", "have it save and end, wherever it runs; waits for it"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("uri", help=what)
        _add_storage_flags(action)
        if name == "logs":
            action.add_argument("--rank", type=int, help="only of this rank")
            action.add_argument("--lines", type=int, default=0, help="only so many of the last (0: all)")
        action.set_defaults(run=_runs)


def _add_storage_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint-url", help="S3 endpoint other than AWS's")
    parser.add_argument("--region", help="S3 region")
    parser.add_argument("--profile", help="named profile of the AWS credentials file")


# The imports stand inside the commands: `poma --help` and a mistyped key should not wait for torch and Ray.


def _run_job(kind: str, a: argparse.Namespace, **more: Any) -> int:
    """Load the job file and hand it to the module of its command."""
    from jobs.config import SCHEMAS, load
    from jobs.submit_secrets import refuse_secrets

    refuse_secrets(a.job, a.overrides)  # what the command makes keeps the job, and shows it
    job: Any = load(SCHEMAS[kind], a.job, a.overrides)
    return int(import_module(f"jobs.{kind}").run(job, **more))


def _pretrain(a: argparse.Namespace) -> int:
    return _run_job("pretrain", a, accept_changes=a.accept_changes)


def _sweep(a: argparse.Namespace) -> int:
    from jobs import sweep_promote, sweep_show
    from jobs.shards import storage_options

    if a.action == RUN_SWEEP:
        return _run_job("sweep", a)
    if a.action == "show":
        return sweep_show.show(a.uri, storage_options(a), a.follow)
    return sweep_promote.promote(a.uri, a.trial, storage_options(a), a.out, a.with_checkpoint, a.output)


def _shards(a: argparse.Namespace) -> int:
    from jobs import shards

    return shards.run(a)


def _checkpoints(a: argparse.Namespace) -> int:
    from jobs import checkpoints

    return checkpoints.run(a)


def _submit(a: argparse.Namespace) -> int:
    from jobs import submit

    return submit.run(a)


def _runs(a: argparse.Namespace) -> int:
    from jobs import runs

    return runs.run(a)


def _doctor(a: argparse.Namespace) -> int:
    from jobs import doctor

    return doctor.run(a.job, a.overrides, a.cluster)


def _plan(a: argparse.Namespace) -> int:
    from jobs import plan

    return plan.run(a)


def _prove(a: argparse.Namespace) -> int:
    from jobs import prove

    return prove.run(a.job, a.overrides, a.folder, a.steps, a.every)


def _config(a: argparse.Namespace) -> int:
    from jobs.config import show

    return show(a.job, a.overrides, a.help_keys)


if __name__ == "__main__":
    sys.exit(main())
