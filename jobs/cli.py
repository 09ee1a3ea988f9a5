# PYTHON_ARGCOMPLETE_OK: argcomplete may ask this file for completions.
"""The `poma` command: the table of its subcommands, in the order in which they are used.

`poma NAME` lives in `jobs/NAME/` and starts in `run(arguments)` of `jobs/NAME/command.py`. A command with
flags of its own declares them in `jobs/NAME/arguments.py`. Both are imported only when they are asked for,
because `poma --help` and a mistyped key should not wait for torch and Ray.
"""

from __future__ import annotations

import argparse
import difflib
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from types import TracebackType
from typing import Any

from jobs import jobfile
from jobs.common.flags import add_job
from jobs.display import meant
from jobs.jobfile import SCHEMAS
from plinth.errors import EXIT_CODE, INTERRUPTED_EXIT_CODE, PlinthError, SeveralErrors
from plinth.redaction import printable, redact
from plinth.schema import describe

EPILOG = """\
a job is a YAML file, or a shipped one as @NAME; key=value words after it override its keys:
  poma pretrain @pretrain optim.lr=3e-4 fit.workers=8
  poma config @pretrain --help-keys     every key with its meaning
an error that you can mend is one line and exit code 2; the same command run again resumes.
"""

MISTYPED = 0.75
"""How alike a flag and a known one must be: `--lr` is a key, not `--help`."""
DISTRIBUTION = "poma3d-platform"


@dataclass(frozen=True)
class Command:
    """A subcommand of `poma`."""

    name: str
    module: str
    """Its `run(arguments: argparse.Namespace) -> int` returns the exit code."""
    help: str
    schema: str | None = None
    """The schema of its job file, as module:class; None for a command that takes none, or several kinds."""
    arguments: str | None = None
    """Module whose `add(parser)` declares the flags; None for a job file and overrides alone."""


COMMANDS = (
    Command(
        "demo",
        "jobs.demo.command",
        "make rooms, train a teacher, pretrain both stages, evaluate, write a report",
        SCHEMAS["demo"],
        "jobs.demo.arguments",
    ),
    Command(
        "ingest",
        "jobs.ingest.command",
        "read scans or rooms, choose views, write point-map shards",
        SCHEMAS["ingest"],
        "jobs.ingest.arguments",
    ),
    Command(
        "lift",
        "jobs.lift.command",
        "predict depth and camera of captioned images, add them to a data set; resumes by itself",
        SCHEMAS["lift"],
        "jobs.lift.arguments",
    ),
    Command(
        "caption",
        "jobs.caption.command",
        "write captions with a vision-language model, keep the best; resumes by itself",
        SCHEMAS["caption"],
    ),
    Command("embed", "jobs.embed.command", "write a teacher's embeddings into the shards", SCHEMAS["embed"]),
    Command(
        "pretrain",
        "jobs.pretrain.command",
        "run the warm-up and the main stage; resumes by itself",
        SCHEMAS["pretrain"],
        "jobs.pretrain.arguments",
    ),
    Command(
        "sweep",
        "jobs.sweep.command",
        "search the values of a job with Ray Tune; show, promote",
        SCHEMAS["sweep"],
        "jobs.sweep.arguments",
    ),
    Command(
        "evaluate",
        "jobs.evaluate.command",
        "zero-shot retrieval, a linear probe, published zero-shot benchmarks",
        SCHEMAS["evaluate"],
    ),
    Command(
        "questions",
        "jobs.questions.command",
        "write questions with true answers about procedural rooms",
        arguments="jobs.questions.arguments",
    ),
    Command(
        "features",
        "jobs.features.command",
        "write a frozen encoder's features of every view; resumes by itself",
        SCHEMAS["features"],
    ),
    Command(
        "finetune",
        "jobs.finetune.command",
        "train a head on features, or a language model that answers; resumes by itself",
        SCHEMAS["finetune"],
        "jobs.finetune.arguments",
    ),
    Command(
        "generate",
        "jobs.generate.command",
        "write what a trained language model answers to a data set of questions; resumes by itself",
        SCHEMAS["generate"],
    ),
    Command(
        "ask",
        "jobs.ask.command",
        "answer questions about a scene with a trained head or language model, and show the scene",
        arguments="jobs.ask.arguments",
    ),
    Command(
        "score",
        "jobs.score.command",
        "score predictions by the published protocols",
        arguments="jobs.score.arguments",
    ),
    Command(
        "export",
        "jobs.export.command",
        "write the target encoder as safetensors",
        SCHEMAS["export"],
        "jobs.export.arguments",
    ),
    Command(
        "shards",
        "jobs.shards.command",
        "look into a data set: inspect, verify, preview; convert an old one",
        arguments="jobs.shards.arguments",
    ),
    Command(
        "view",
        "jobs.view.command",
        "write a scene as a page: cloud and cameras in 3D, every view beside its depth",
        arguments="jobs.view.arguments",
    ),
    Command(
        "locate",
        "jobs.locate.command",
        "rank the views of a scene by texts, on such a page",
        arguments="jobs.locate.arguments",
    ),
    Command(
        "annotations",
        "jobs.annotations.command",
        "look into the benchmarks' annotation files: check",
        arguments="jobs.annotations.arguments",
    ),
    Command(
        "checkpoints",
        "jobs.checkpoints.command",
        "a run's checkpoints: list, verify, repair, prune, pin",
        arguments="jobs.checkpoints.arguments",
    ),
    Command(
        "submit",
        "jobs.submit.command",
        "send a job to a cluster and follow it; resumes by itself",
        arguments="jobs.submit.arguments",
    ),
    Command(
        "runs",
        "jobs.runs.command",
        "how runs are doing: list, show, logs, page, stop",
        arguments="jobs.runs.arguments",
    ),
    Command(
        "doctor",
        "jobs.doctor.command",
        "what would go wrong, before anything is paid for",
        arguments="jobs.doctor.arguments",
    ),
    Command(
        "plan",
        "jobs.plan.command",
        "memory, time, storage and cost of a job, before anything starts",
        arguments="jobs.plan.arguments",
    ),
    Command(
        "profile",
        "jobs.profile.command",
        "where the time and memory of a job's steps go: table, trace, page",
        arguments="jobs.profile.arguments",
    ),
    Command(
        "prove-resume",
        "jobs.prove_resume.command",
        "run a job, shortened, straight and with kills and resizes; compare",
        arguments="jobs.prove_resume.arguments",
    ),
    Command(
        "config",
        "jobs.config.command",
        "print the resolved job, or every key with its meaning",
        arguments="jobs.config.arguments",
    ),
)


class _Parser(argparse.ArgumentParser):
    """A parser that says what a mistyped word may have been meant for."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        close = difflib.get_close_matches(str(value), choices, n=1)
        fix = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(choices)}."
        name = action.metavar or "/".join(action.option_strings) or action.dest
        raise argparse.ArgumentError(None, f"{printable(repr(value))} is no {name}. {fix}")


class _Version(argparse.Action):
    """`poma --version`: what a report of a bug needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        versions = (f"{name} {version(name)}" for name in ("torch", "ray", "deepspeed"))
        print(f"poma {version(DISTRIBUTION)} (Python {platform.python_version()}, {', '.join(versions)})")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    sys.excepthook = _report_bug
    # Before torch is loaded, here and in all that is started from here. Its threads otherwise wait for each
    # other in a busy loop, and on cores that have other work, too, a step takes twenty times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = sys.argv[1:] if argv is None else list(argv)
    command = find_command(words)
    if suggestion := meant.command(words, [command.name for command in COMMANDS]):
        print(printable(suggestion), file=sys.stderr)
        return EXIT_CODE
    arguments = parse(words, command)
    assert command is not None, "argparse has refused anything else"
    try:
        result = import_module(command.module).run(arguments)
    except PlinthError as error:
        print("\n".join(_lines(command.name, error)), file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print(f"poma {command.name}: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:  # `poma ... | head`
        return 0
    return int(result or 0)


def _lines(command: str, error: PlinthError) -> Iterator[str]:
    """A line for the mistake, or one for each of several."""
    if not isinstance(error, SeveralErrors):
        yield f"poma {command}: {printable(redact(str(error)))}"
        return
    yield f"poma {command}: {len(error.errors)} things to mend:"
    for number, one in enumerate(error.errors, 1):
        yield f"  {number}. {printable(redact(str(one)))}"


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug keeps its traceback, but not the secrets in it: Ray shows the last lines of a job to all."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def find_command(words: Sequence[str]) -> Command | None:
    """The command that a command line begins with."""
    return next((known for known in COMMANDS if words and known.name == words[0]), None)


def parse(words: list[str], command: Command | None) -> argparse.Namespace:
    """The command line; key=value words may also stand after the options."""
    if command is not None and command.name == "sweep":
        words = import_module("jobs.sweep.arguments").with_action(words)
    parser = parser_of(command)
    _refuse_mistyped_flags(parser, words, command)
    arguments, late = parser.parse_known_args(words)
    if flags := [word for word in late if word.startswith("--") and hasattr(arguments, "overrides")]:
        schema = jobfile.open_schema(command.name) if command and command.schema else None
        print(
            f"poma {arguments.command}: {printable(meant.as_key(flags[0], words, schema))}", file=sys.stderr
        )
        raise SystemExit(EXIT_CODE)
    is_override = [not word.startswith("-") and "=" in word for word in late]
    if not all(is_override) or (late and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def _refuse_mistyped_flags(
    parser: argparse.ArgumentParser, words: Sequence[str], command: Command | None
) -> None:
    """End with what a flag may have been meant for; argparse would first ask for what is then missing."""
    if command is None:
        return
    known = [flag for action in _all_actions(parser) for flag in action.option_strings]
    for word in words:
        if word == "--":  # what follows are no flags
            break
        flag = word.partition("=")[0]
        if not flag.startswith("--") or any(name.startswith(flag) for name in known):
            continue
        if close := difflib.get_close_matches(flag, known, n=1, cutoff=MISTYPED):
            print(
                f"poma {command.name}: there is no flag {printable(flag)}. Did you mean {close[0]}?",
                file=sys.stderr,
            )
            raise SystemExit(EXIT_CODE)


def parser_of(asked: Command | None) -> argparse.ArgumentParser:
    """All commands by name and help line; flags only of the one that was asked for."""
    parser = _Parser(
        prog="poma",
        description="Pretrain POMA-3D on point maps with Ray and DeepSpeed: kill it, resize it, same result.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        text = command.help
        sub = commands.add_parser(command.name, help=text, description=text[0].upper() + text[1:] + ".")
        if command is not asked:
            continue
        if command.arguments is None:
            add_job(sub, command.name)
        else:
            import_module(command.arguments).add(sub)
    return parser


# -- completion on Tab ------------------------------------------------------------------------------------


def _complete() -> None:
    """Tell the shell what may follow the words in COMP_LINE, and end the process; see argcomplete."""
    import argcomplete

    line = os.environ["COMP_LINE"]
    words = line.split()
    if len(words) > 2 and words[1] == "sweep" and any(sign in words[2] for sign in "./"):  # a job file
        os.environ["COMP_LINE"] = line.replace(" sweep ", " sweep run ", 1)
        os.environ["COMP_POINT"] = str(int(os.environ["COMP_POINT"]) + len("run "))
    parser = parser_of(find_command(words[1:]))
    for action in _all_actions(parser):
        if action.dest in ("job", "cluster"):
            action.completer = argcomplete.FilesCompleter(("yaml",))
        elif action.dest == "overrides":
            action.completer = _job_keys
    argcomplete.autocomplete(parser, always_complete_options=False)


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Positionals and flags of a parser and of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _all_actions(sub)


def _job_keys(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Keys of the job file on the command line, each with the sign that a value follows."""
    schema = jobfile.open_schema(jobfile.read(parsed_args.job).kind)
    return [f"{key.name}=" for key in describe(schema) if "[]" not in key.name]


if __name__ == "__main__":
    sys.exit(main())
