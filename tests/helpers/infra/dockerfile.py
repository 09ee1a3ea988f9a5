"""A Dockerfile as stages of instructions, and what an engine's build check would say of it.

No engine is needed: `docker build --check` is not there on every machine that runs the tests. Known are the
instructions that the images use; a new kind is a problem until it is added to `KNOWN`.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass, field

KNOWN = ("FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "CMD")
EXPANDED = ("FROM", "ARG", "ENV", "COPY", "WORKDIR", "USER")
"""In these the builder itself replaces variables; in RUN the shell does."""
GIVEN = {"PATH", "HOME"}
"""Variables that base images have."""
VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Instruction:
    """One logical line."""

    name: str
    text: str
    """What stands behind the name, on one line."""

    @property
    def flags(self) -> dict[str, str]:
        """The builder's options, such as `--from=build`."""
        pairs = (word[2:].partition("=") for word in self._words if word.startswith("--"))
        return {key: value for key, _, value in pairs}

    @property
    def arguments(self) -> list[str]:
        """The words that are no flags, without quotes."""
        return [word for word in self._words if not word.startswith("--")]

    @property
    def variables(self) -> dict[str, str]:
        """What ARG or ENV sets; a value of ARG may be missing and is empty then."""
        return {key: value for key, _, value in (word.partition("=") for word in self.arguments)}

    @property
    def commands(self) -> list[list[str]]:
        """Of RUN: the words of each command of the `&&` chain, without leading assignments."""
        chain = [shlex.split(command) for command in self.text.split("&&")]
        return [[w for i, w in enumerate(words) if "=" not in w or i >= _first(words)] for words in chain]

    @property
    def _words(self) -> list[str]:
        return shlex.split(self.text)


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    """Of the image; variables are replaced by their defaults."""
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> list[Instruction]:
        """Its instructions of one kind, in order."""
        return [i for i in self.instructions if i.name == name]


@dataclass
class Dockerfile:
    """`settings` are the ARGs before the first stage."""

    settings: dict[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What a builder would refuse or warn of."""


def parse(text: str) -> Dockerfile:
    """Read it; whatever is wrong is in `problems`."""
    found = Dockerfile()
    known = set(GIVEN)
    for instruction in _instructions(text):
        name = instruction.name
        if name not in KNOWN:
            found.problems.append(f"{name} is no known instruction")
            continue
        if name == "FROM":
            known = set(found.settings)
            _unknown(found, instruction, known)
            base, *rest = instruction.arguments
            if rest and (len(rest) != 2 or rest[0].upper() != "AS"):
                found.problems.append(f"FROM {instruction.text}: expected FROM image AS name")
            found.stages.append(Stage(_replaced(base, found.settings), rest[-1] if rest else ""))
            known = set(GIVEN)
            continue
        if name in EXPANDED:
            _unknown(found, instruction, known)
        if name in ("ARG", "ENV"):
            known |= instruction.variables.keys()
        if not found.stages:
            if name != "ARG":
                found.problems.append(f"{name} stands before the first FROM")
            found.settings |= instruction.variables
            continue
        found.problems += _problems(instruction, [stage.name for stage in found.stages[:-1]])
        found.stages[-1].instructions.append(instruction)
    return found


def _problems(instruction: Instruction, before: list[str]) -> list[str]:
    """What is wrong with an instruction of a stage that comes after the stages named `before`."""
    text = instruction.text
    if instruction.name == "COPY":
        if len(instruction.arguments) < 2:
            return [f"COPY {text}: expected a source and a destination"]
        if (source := instruction.flags.get("from", "")) and source not in before:
            return [f"COPY {text}: there is no stage {source} before it"]
    if instruction.name == "ENV" and not all("=" in word for word in instruction.arguments):
        return [f"ENV {text}: expected NAME=VALUE"]
    if instruction.name == "RUN":
        done = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True, check=False)
        return [f"RUN {text}: {done.stderr.strip()}"] if done.returncode else []
    if instruction.name == "CMD":
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if not isinstance(words, list):
            return [f"CMD {text}: the shell form takes no signals; expected a JSON list"]
    return []


def _unknown(found: Dockerfile, instruction: Instruction, known: set[str]) -> None:
    for name in VARIABLE.findall(instruction.text):
        if name not in known:
            found.problems.append(f"{instruction.name} {instruction.text}: {name} is not declared here")


def _replaced(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: values.get(match[1], ""), text)


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    split = (line.strip().partition(" ") for line in joined if line.strip())
    return [Instruction(name.upper(), " ".join(rest.split())) for name, _, rest in split]


def _first(words: list[str]) -> int:
    """Index of the command behind assignments such as `A=1 B=2 make`."""
    return next((i for i, word in enumerate(words) if "=" not in word), len(words))
