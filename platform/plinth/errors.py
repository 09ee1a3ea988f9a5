"""Errors that a user can act on: each says what is wrong, what was expected and what to do.

The command line prints them as one line and exits with `EXIT_CODE`; any other error is a bug and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130
"""128 + SIGINT: Ctrl-C."""
STOPPED_EXIT_CODE = 143
"""128 + SIGTERM: the run was asked to stop, by whatever means, and saved first."""


class PlinthError(Exception):
    """A problem that the user can fix.

    Args:
        problem: what is wrong, naming the file, row or key, and what was expected.
        fix: what to do about it, as an instruction. Empty when `problem` already says it.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem} {fix}".strip())

    def __reduce__(self) -> tuple[type[PlinthError], tuple[str, str]]:
        return type(self), (self.problem, self.fix)  # so that it pickles: Ray sends it between processes


class ConfigError(PlinthError):
    """A job file with an unknown key, a wrong type or a contradiction."""


class StorageError(PlinthError):
    """Storage that cannot be reached, refuses the credentials or lacks the bucket."""


class DataError(PlinthError):
    """A manifest, shard or row that does not match its description."""


class CheckpointError(PlinthError):
    """A checkpoint that is missing, damaged or belongs to another job."""


class TakenOverError(PlinthError):
    """Another process has taken over what this one was writing: this one ends without writing more."""


class WorkersLostError(PlinthError):
    """Workers that were lost too often, or failed too often for a reason outside the job."""


class SeveralErrors(PlinthError):
    """Mistakes that were found together, so that they can be mended together.

    Args:
        errors: two or more.
    """

    def __init__(self, errors: Sequence[PlinthError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) for error in errors))

    def __reduce__(self) -> tuple[type[SeveralErrors], tuple[Sequence[PlinthError]]]:  # type: ignore[override]
        return type(self), (self.errors,)


def raise_together(checks: Iterable[Callable[[], object]]) -> None:
    """Run all checks.

    Raises:
        PlinthError: the one that was found.
        SeveralErrors: more than one, each once.
    """
    found: dict[str, PlinthError] = {}
    for check in checks:
        try:
            check()
        except PlinthError as error:
            for one in error.errors if isinstance(error, SeveralErrors) else (error,):
                found.setdefault(str(one), one)
    if len(found) > 1:
        raise SeveralErrors(list(found.values()))
    for only in found.values():
        raise only


class NonFiniteError(PlinthError):
    """A loss or gradient norm that is not finite, found before the optimizer step.

    `by_rank` has the ids of the samples that each rank suspects; only in the process that raised it.
    """

    by_rank: Sequence[list[str]] = ()


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def cause_of(error: BaseException) -> BaseException:
    """The error of the job inside Ray's wrappings (a failed task has it as `cause`), or `error` itself."""
    link: BaseException | None = error
    while link is not None:
        inner = getattr(link, "cause", None)
        if isinstance(link, PlinthError) and inner is None:
            return link
        link = inner if isinstance(inner, BaseException) else link.__cause__
    return error
