"""Randomness that belongs to the sample and the epoch, never to a rank, a worker or a micro-batch."""

from __future__ import annotations

import hashlib

import torch


def generator(tag: str, seed: int, epoch: int, sample_key: int) -> torch.Generator:
    """A CPU generator that depends on its arguments alone (about 3 us).

    Args:
        tag: what is drawn ("masks", "captions"); different tags are independent streams.
        seed: of the job.
        epoch: pass over the data.
        sample_key: int64 hash of the sample's id.
    """
    digest = hashlib.blake2b(f"{tag}\0{seed}\0{epoch}\0{sample_key}".encode(), digest_size=8).digest()
    made = torch.Generator()
    made.manual_seed(int.from_bytes(digest, "little") >> 1)  # 63 bits: manual_seed takes an int64
    return made
