"""torch.compile of the encoders: one graph each, the same results, the same names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from poma3d.network.config import AOT_EAGER, LossConfig
from poma3d.stages import CONTEXT_MASK, MainStage, WarmupStage, build_stage
from tests.helpers import tiny

SAMPLES = 2


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No graphs are left from other tests, or for them."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def stage_of(kind: str, mode: str, backend: str = "none") -> WarmupStage | MainStage:
    model = tiny.model_config(mode)
    model.encoder.compile = backend
    return build_stage(kind, model, LossConfig(), tiny.shape(), tiny.tower(), seed=0)


@pytest.mark.parametrize("kind", ["warmup", "main"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_encoder_is_one_graph(kind: str, mode: str) -> None:
    stage = stage_of(kind, mode)
    batch = stage.prepare(stage.fake_batch(SAMPLES))
    kept = batch[CONTEXT_MASK].flatten(0, 1) if kind == "main" else None
    found = torch._dynamo.explain(stage.encoder)(stage._views(batch), kept)
    assert found.graph_count == 1
    assert found.graph_break_count == 0, found.break_reasons


def test_a_compiled_stage_has_the_same_features_gradients_and_names() -> None:
    plain, compiled = (stage_of("main", "lora", backend) for backend in ("none", AOT_EAGER))
    batch = plain.prepare(plain.fake_batch(SAMPLES))
    calls = torch._dynamo.utils.counters["stats"]
    for stage in (plain, compiled):
        encoded = stage(batch)
        (encoded.features["view"].sum() + encoded.sums["jepa"]).backward()
        assert bool(calls["unique_graphs"]) == (stage is compiled)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for (name, expected), (_, found) in zip(
        plain.named_parameters(), compiled.named_parameters(), strict=True
    ):
        assert (found.grad is None) == (expected.grad is None), name
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, msg=name)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder\.compile is 'nvfuser'; use one of none, inductor"):
        stage_of("warmup", "full", "nvfuser")
