"""What a head or a language model is built from to see scenes: what a worker keeps, and what does not fit."""

from __future__ import annotations

from jobs.finetune.config import EncoderConfig
from jobs.finetune.set_up import kept_scenes, largest_batch
from jobs.pretrain.config import StageLength
from plinth.launch.config import Workers


def test_a_worker_keeps_the_scenes_of_the_batches_that_are_read_ahead() -> None:
    """A batch is read ahead with all of its micro-batches, the more of them the fewer workers there are."""
    stage = StageLength(global_batch_size=512, micro_batch_size=2)
    assert largest_batch(stage, Workers(0, 0)) == largest_batch(stage, Workers(1, 4)) == 512
    assert largest_batch(stage, Workers(3, 4)) == 171
    assert kept_scenes(None, 171) == 4 * 171
    assert kept_scenes(None, 1) == 64
    assert kept_scenes(EncoderConfig("x", cached_scenes=7), 512) == 7
