"""An encoder's sizes by the names that transformers has for them: what the config.json of
`poma export --format transformers` holds. It is read without transformers, too (`poma3d.export.load`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from poma3d.export.search import Provenance
from poma3d.network.vit import ACTIVATIONS, VitShape

MODEL_TYPE, LLM_MODEL_TYPE = "poma3d", "poma3d_llm"
"""Of an encoder, and of a language model that answers from scenes."""
FORMAT_VERSION = 1
VERSION_KEY, SIZE, PATCH, GAIN, PROVENANCE = (
    "format_version", "image_size", "patch_size", "input_gain", "provenance",
)  # fmt: skip
POOLINGS = ("class", "attention")
SHAPE_KEYS = {
    "channels": "num_channels",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
    "pooling": "pooling",
    "joint": "projection_dim",
}
"""Field of `VitShape` -> key."""
KEYS = (VERSION_KEY, SIZE, PATCH, *SHAPE_KEYS.values(), GAIN, PROVENANCE)
"""All keys of ours; none of them has a default."""
OTHER_FORMAT = "install the version of poma3d-platform that wrote the folder, or export again"


def to_keys(shape: VitShape, gain: float, provenance: Provenance) -> dict[str, Any]:
    """The keys of an encoder, `KEYS`."""
    sizes = {key: getattr(shape, name) for name, key in SHAPE_KEYS.items()}
    return {
        VERSION_KEY: FORMAT_VERSION,
        SIZE: list(shape.image_size),
        PATCH: shape.patch,
        **sizes,
        GAIN: gain,
        PROVENANCE: asdict(provenance),
    }


def check_keys(
    found: Mapping[str, Any], others: frozenset[str] | None = None, keys: Sequence[str] = KEYS
) -> None:
    """Refuse a config.json that lacks keys or has other ones.

    Args:
        found: its content.
        others: keys of transformers' own that may stand beside ours; all may when None.
        keys: ours, the version among them.

    Raises:
        ValueError: naming the key, what was expected, and what to do.
    """
    version = found.get(VERSION_KEY)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"config.json has {VERSION_KEY} {version!r}, this package reads {FORMAT_VERSION}: {OTHER_FORMAT}"
        )
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"config.json lacks {', '.join(missing)}: copy the folder again, or export again")
    unknown = [] if others is None else sorted(set(found) - set(keys) - others)
    if unknown:
        close = difflib.get_close_matches(unknown[0], keys, n=1)
        fix = f"did you mean {close[0]}?" if close else OTHER_FORMAT
        raise ValueError(f"config.json has an unknown key {unknown[0]!r}: {fix}")


def shape_of(found: Mapping[str, Any]) -> VitShape:
    """The sizes that the keys of a checked config.json say.

    Raises:
        ValueError: values that no encoder has, naming the key.
    """
    size, patch = found[SIZE], found[PATCH]
    whole = [key for name, key in SHAPE_KEYS.items() if name not in ("activation", "norm_eps", "pooling")]
    for key, value in {PATCH: patch, **{key: found[key] for key in whole}}.items():
        if not _is_count(value):
            raise ValueError(f"config.json: {key} is {value!r}, expected a whole number above 0")
    for key in (SHAPE_KEYS["norm_eps"], GAIN):
        if isinstance(found[key], bool) or not isinstance(found[key], int | float) or not found[key] > 0:
            raise ValueError(f"config.json: {key} is {found[key]!r}, expected a number above 0")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_count, size))):
        raise ValueError(f"config.json: {SIZE} is {size!r}, expected [height, width] in pixels")
    if any(side % patch for side in size):
        raise ValueError(f"config.json: {SIZE} {list(size)} is not made of patches of {PATCH} {patch}")
    named = {name: found[key] for name, key in SHAPE_KEYS.items()}
    for name, known in (("activation", tuple(ACTIVATIONS)), ("pooling", POOLINGS)):
        if named[name] not in known:
            raise ValueError(
                f"config.json: {SHAPE_KEYS[name]} is {named[name]!r}, expected one of {', '.join(known)}"
            )
    if named["width"] % named["heads"]:
        raise ValueError(
            f"config.json: hidden_size {named['width']} is no multiple of num_attention_heads "
            f"{named['heads']}"
        )
    return VitShape(grid=(size[0] // patch, size[1] // patch), patch=patch, **named)


def provenance_of(found: Mapping[str, Any]) -> Provenance:
    """Where the encoder comes from.

    Raises:
        ValueError: other fields.
    """
    said = found[PROVENANCE]
    known = {one.name for one in fields(Provenance)}
    if not isinstance(said, Mapping) or set(said) - known:
        raise ValueError(f"config.json: {PROVENANCE} is {said!r}, expected an object of {', '.join(known)}")
    return Provenance(**said)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
