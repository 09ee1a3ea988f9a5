"""Every query of the dashboard asks for metrics that the code exports, with labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from plinth.observe.telemetry import COUNTER, METRICS, exported_name

GRAFANA = Path(__file__).parents[3] / "infra" / "grafana"
WORD = re.compile(r"\b(?:ray|plinth)_[a-z_]+")
EXPORTED = {exported_name(name): spec for name, spec in METRICS.items()}
NODE_LABELS = {"instance", "job"}


def dashboard() -> dict[str, Any]:
    return dict(json.loads((GRAFANA / "dashboard.json").read_text()))


def queries() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


def test_every_query_uses_an_exported_name() -> None:
    asked = {(title, word) for title, query in queries() for word in WORD.findall(query)}
    assert len(asked) > len(METRICS)
    assert not [pair for pair in asked if pair[1] not in EXPORTED]


def test_every_metric_has_a_panel() -> None:
    drawn = {word for _, query in queries() for word in WORD.findall(query)}
    assert drawn == set(EXPORTED)


def test_labels_are_those_of_the_metric() -> None:
    for title, query in queries():
        for word in WORD.findall(query):
            known = {*EXPORTED[word].tags, *NODE_LABELS}
            asked = set(re.findall(r"(\w+)=~?\"", query))
            asked |= {
                label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")
            }
            assert asked <= known, f"{title}: {word} has no {asked - known}"


def test_only_counters_are_queried_as_rates() -> None:
    for title, query in queries():
        for word in WORD.findall(query):
            is_counter = EXPORTED[word].kind == COUNTER
            assert (f"rate({word}" in query) == is_counter, title


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in dashboard()["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_prometheus_scrapes_the_ports_of_ray_and_kuberay() -> None:
    prometheus = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["file_sd_configs"][0]["files"] == [
        "/tmp/ray/prom_metrics_service_discovery.json"
    ]
    monitor = yaml.safe_load((GRAFANA / "podmonitor.yaml").read_text())
    job = yaml.safe_load((GRAFANA.parent / "kuberay/base/rayjob.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= head["metadata"]["labels"].items()
    ports = {port["name"] for port in head["spec"]["containers"][0]["ports"]}
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports
