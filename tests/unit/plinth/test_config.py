"""Strict configs: what is refused, and what the refusal says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
import yaml

from plinth import config
from plinth.errors import ConfigError
from plinth.schema import MISSING, describe, type_name


@dataclass
class Optim:
    lr: float = 1e-4
    """Peak learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    """Adam's decay rates."""


class Order(Enum):
    fixed = 1
    shuffled = 2


@dataclass
class Source:
    uri: str = MISSING
    """Where the shards are."""
    weight: float = 1.0
    """Passes over it per epoch."""
    order: Order = Order.fixed
    """How it is read."""


@dataclass
class Job:
    name: str = MISSING
    """Name of the run."""
    optim: Optim = field(default_factory=Optim)
    """The optimizer."""
    sources: list[Source] = field(default_factory=list)
    """Data sets."""
    teacher: Optim | None = None
    """An optional part."""
    ids: list[str] | None = None
    """Names."""
    count: int = 0
    """A number."""


def job(tmp_path: Path, text: str, *overrides: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return config.load(Job, path, overrides)


def test_layers_win_in_order(tmp_path: Path) -> None:
    got = job(tmp_path, "name: a\noptim: {lr: 0.5}\nsources: [{uri: x}]", "optim.lr=3e-4", "name=b")
    assert (got.name, got.optim.lr, got.sources[0].weight) == ("b", 3e-4, 1.0)
    assert isinstance(got.sources[0], Source)
    assert config.build(Job, [("again", config.to_dict(got))]) == got


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("name: a\noptim: {lrr: 1}", [], "unknown key optim.lrr. Did you mean optim.lr?"),
        ("name: a", ["lr=1"], "unknown key lr. Did you mean optim.lr or"),
        ("name: a\nsources: [{uri: x, wait: 2}]", [], "unknown key sources[0].wait"),
        ("name: a\noptim: {lr: fast}", [], "optim.lr is 'fast', expected a number."),
        ("name: a", ["optim.lr=[1]"], "optim.lr is [1], expected a number."),
        ("name: a\noptim: {lr: }", [], "optim.lr has no value, expected a number."),
        ("name: a\noptim:", [], "optim has no value, expected keys below it."),
        (
            "name: a",
            ["optim=[1, 2]"],
            "optim: expected keys below it, found [1, 2]. It has the keys lr, betas.",
        ),
        (
            "name: a",
            ["sources={uri: x}"],
            "sources: expected a list, found {'uri': 'x'}. Each item has the keys",
        ),
        (
            "name: a\nsources: x",
            [],
            "sources: expected a list, found 'x'. Each item has the keys uri, weight, order.",
        ),
        ("name: a", ["optim.betas=0.9"], "optim.betas: expected a list, found 0.9. Write it in brackets"),
        ("name: a\noptim: {betas: [a]}", [], "optim.betas[0] is 'a', expected a number."),
        ("name: a\nsources: [{uri: x, weight: y}]", [], "sources[0].weight is 'y', expected a number."),
        (
            "name: a\nsources: [{uri: x, order: fixd}]",
            [],
            "sources[0].order is 'fixd', expected one of fixed",
        ),
        ("name: a", ["sources=[{uri: x, order: fixd}]"], "shuffled. Did you mean fixed?"),
        ("name: a", ["count=1.5"], "count is 1.5, expected a whole number."),
        ("name: {a: b}", [], "name: expected text, found {'a': 'b'}."),
        ("name: a", ["optim=3"], "optim: expected keys below it"),
        ("optim: {lr: 1}", [], "no value for name"),
        ("name: a\nsources: [{weight: 2}]", [], "no value for sources[0].uri"),
        ("name: [unclosed", [], "not valid YAML"),
        ("- a list", [], "expected `key: value`"),
        ("name: a\nname: b", [], "duplicate key name at line 2"),
        ("name: a\n\tcount: 1", [], "found a tab character that violates indentation at line 2"),
        ('name: "a\\0b"', [], "name is 'a\\x00b', and no name holds the character \\0."),
        ("name: a", ["optim.lr"], "expected an override of the form key=value"),
        ("name: ${nowhere}", [], "name: Interpolation key 'nowhere' not found."),
        ("name: 83", [], "name is text, but YAML reads 83 as a int. Put it in quotes."),
        ("name: a\nids: [1.50]", [], "ids[0] is text, but YAML reads 1.5 as a float. Put it in quotes."),
        ("name: !!binary aGk=", [], "name: expected text, found b'hi'."),
        (
            "name: a\nsources: [{uri: x, order: [fixed]}]",
            [],
            "sources[0].order is ['fixed'], expected one of",
        ),
        ("name: a\nsources: [{uri: x, order: {a: 1}}]", [], "sources[0].order is {'a': 1}, expected one of"),
        ("name: a", ["ids=[a, no]"], "ids[1] is text, but YAML reads False as a bool"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, text: str, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, text, *overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reference",
    [
        "${oc.env:SECRET}",
        "${ oc.env:SECRET}",
        "${oc.env :SECRET}",
        "a ${\toc.env: SECRET, none } b",
        "${oc.${optim.x}:SECRET}",
        "${oc.select:nowhere, ${oc.env:SECRET}}",
        "${oc.decode:'${oc.env:SECRET}'}",
        "${oc.create:{a: 1}}",
        "\\${oc.env:SECRET}",
    ],
)
@pytest.mark.parametrize("as_override", [False, True])
def test_nothing_outside_of_the_job_is_read(
    reference: str, as_override: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"name": "a" if as_override else reference}))
    overrides = [f"name={reference}"] if as_override else []
    with pytest.raises(ConfigError, match=r": name (reads what is outside of the job|holds )") as caught:
        config.load(Job, tmp_path / "job.yaml", overrides)
    assert "hunter2" not in str(caught.value)


def test_references_to_keys_of_the_job_are_resolved(tmp_path: Path) -> None:
    got = job(tmp_path, "name: a\nids: ['${name}/x', '${oc.select:optim.none,b}', '${.[0]}']\ncount: 3")
    assert got.ids == ["a/x", "b", "a/x"]


def test_a_config_is_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever put a reference there, writing does not resolve it."""
    monkeypatch.setenv("SECRET", "hunter2")
    assert config.to_dict(Job(name="${oc.env:SECRET}"))["name"] == "${oc.env:SECRET}"


def test_text_on_the_command_line_stays_text(tmp_path: Path) -> None:
    assert job(tmp_path, "name: a", "name=0123").name == "0123"
    assert job(tmp_path, "name: a", "name=1e5").name == "1e5"
    assert job(tmp_path, "name: a\nsources: [{uri: x}]", "sources=[{uri: y}]").sources[0].uri == "y"


@pytest.mark.parametrize("written", ["0010", "1_000", "0x1F", "12:30", "0b11", "+5", "007", "41048190", "-0"])
def test_ids_are_texts_as_they_are_written(written: str, tmp_path: Path) -> None:
    """YAML 1.1 has octal, hexadecimal, sexagesimal and grouped numbers."""
    for value in (f"[{written}]", f"['{written}']", f'["{written}", b]'):
        assert job(tmp_path, f"name: a\nids: {value} # {written}").ids[0] == written
        assert job(tmp_path, "name: a", f"ids={value}").ids[0] == written
    assert job(tmp_path, f"name: a\nids:\n- b\n- {written}\n").ids == ["b", written]


def test_numbers_are_decimal_however_they_are_written(tmp_path: Path) -> None:
    assert job(tmp_path, "name: a\ncount: 0010").count == 10
    assert job(tmp_path, "name: a", "count=1_000").count == 1000
    assert job(tmp_path, "\ufeffname: 0123\ncount: 7").name == "0123"
    with pytest.raises(ConfigError, match="count is '12:30', expected a whole number"):
        job(tmp_path, "name: a\ncount: 12:30")


def test_an_item_of_a_list_can_be_given(tmp_path: Path) -> None:
    text = "name: a\nsources:\n  - uri: ???\n    weight: 2\n  - uri: x\n"
    with pytest.raises(ConfigError, match=r"or as sources\[0\]\.uri=VALUE"):
        job(tmp_path, text)
    got = job(tmp_path, text, "sources[0].uri=y", "sources[1]={uri: z, weight: 3}", "sources[2].uri=0123")
    assert [(s.uri, s.weight) for s in got.sources] == [("y", 2.0), ("z", 3.0), ("0123", 1.0)]
    assert job(tmp_path, text, "sources[0].uri=s3://b/images#3").sources[0].uri == "s3://b/images#3"
    assert job(tmp_path, "name: a", "optim.betas[1]=0.5").optim.betas == [0.9, 0.5]
    for override, says in (
        ("sources[4].uri=y", "sources[4]: there are 2 items, counted from 0"),
        ("sources[last].uri=y", "sources[last]"),
        ("sources[0].url=y", "unknown key sources[0].url. Did you mean sources[0].uri?"),
        ("sources[0.uri=y", "sources"),
    ):
        with pytest.raises(ConfigError) as caught:
            job(tmp_path, text, "sources[0].uri=y", override)
        assert says in str(caught.value)


def test_missing_file_suggests_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "pretrain.yaml").write_text("name: a")
    with pytest.raises(ConfigError, match=r"Did you mean .*pretrain\.yaml"):
        config.load(Job, tmp_path / "pretrian.yaml")


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    (tmp_path / "pretrain.yaml").write_text("name: a")
    with pytest.raises(ConfigError, match=r"is a folder\. Job files in .*: pretrain\.yaml"):
        config.load(Job, tmp_path)


def test_changed_keys_and_fingerprint(tmp_path: Path) -> None:
    a = job(tmp_path, "name: a\nsources: [{uri: x}]")
    b = job(tmp_path, "name: a\nsources: [{uri: x, weight: 2}]")
    assert config.changed_keys(config.to_dict(a), config.to_dict(b)) == [("sources[0].weight", 1.0, 2.0)]
    assert config.fingerprint(a) != config.fingerprint(b)
    assert config.fingerprint(a) == config.fingerprint(dict(reversed(config.to_dict(a).items())))


def test_every_key_has_its_help() -> None:
    keys = {key.name: key for key in describe(Job)}
    assert keys["optim.lr"].help == "Peak learning rate."
    assert keys["name"].default == "(required)"
    assert set(keys) >= {"sources[].uri", "teacher.lr"}


def test_types_are_named_as_a_job_file_has_their_values() -> None:
    named = {type_name(hint) for hint in (list[Order], list[int], Order | None, list[str] | None)}
    assert named == {
        "list[one of fixed, shuffled]", "list[int]", "one of fixed, shuffled | None", "list[str] | None",
    }  # fmt: skip


@dataclass
class _Size:
    least: int = 1
    most: int = 1

    @staticmethod
    def from_number(number: int) -> dict[str, int]:
        return {"least": number, "most": number}


@dataclass
class _Sizes:
    size: _Size = field(default_factory=_Size)
    perhaps: _Size | None = None
    several: list[_Size] = field(default_factory=list)
    named: dict[str, _Size] = field(default_factory=dict)


def test_a_number_stands_for_its_keys_wherever_the_section_is() -> None:
    text = "{size: 2, perhaps: 3, several: [4, {least: 1, most: 5}], named: {a: 6}}"
    found = config.resolve(_Sizes, config.parse(text, "job"), "job")
    both = [found.size, found.perhaps, *found.several, found.named["a"]]
    assert both == [_Size(2, 2), _Size(3, 3), _Size(4, 4), _Size(1, 5), _Size(6, 6)]
