"""What a user of a short or small run would not guess: said once, in words, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.pretrain.config import PretrainJob
from plinth.train.resolve import ResolvedStage
from poma3d import ema

NEAR_ITS_END = 0.9
"""A target encoder that has come this far needs no advice."""
MAIN = "main"


def missing_terms(job: PretrainJob, stages: Sequence[ResolvedStage]) -> Iterator[str]:
    """Loss terms that stay 0, because the data has nothing to compare."""
    for stage in stages:
        sources = [source.manifest for source in stage.mixture.sources]
        counted = [manifest.attributes.get("statistics", {}) for manifest in sources]
        has_scene = stage.name == MAIN
        for kind, term in (("view", "view_text"), ("scene", "scene_text")):
            counts = [counts.get(f"{kind}_captions") for counts in counted]
            if (kind == "view" or has_scene) and counts and all(count == 0 for count in counts):
                yield f"{stage.name}: the data has no {kind} captions, so {term} is off (0 throughout)"
        samples = sum(shard.rows for manifest in sources for shard in manifest.shards)
        if has_scene and samples == 1:
            yield (
                f"{stage.name}: the data is 1 sample, with no other to tell it from, so scene_image and "
                "scene_text are off (0 throughout); cut scans with views.chunk_frames, or ingest more"
            )


def target_way(job: PretrainJob, stages: Sequence[ResolvedStage]) -> Iterator[str]:
    """How far the target encoder, which is evaluated and exported, has come at the end of its stage."""
    for stage in stages:
        if stage.name != MAIN:
            continue
        come = ema.way_come(job.model.ema, stage.total_steps, stage.total_steps)
        line = f"{stage.name}: the target encoder has come {come:.0%} of the way from its start"
        if come < NEAR_ITS_END:
            line += (
                "; the encoder that it follows is further: give `poma export` and `poma evaluate` "
                "weights=student, or train for more steps, or lower model.ema.momentum_start"
            )
        yield line
