"""What a command left out, in words: the most frequent reason, and what to do about that one.

Every command that leaves frames or records out writes `rejects.csv`, also when nothing is left and when
nothing was left out (the header alone): who looks for it need not know how the command ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase

from plinth.redaction import printable

REJECTS_FILE = "rejects.csv"
VALUE_CHARACTERS = 300
"""Of the example in a last line or an error."""

Remedies = Mapping[str, str]
"""Pattern of a reason (`fnmatch`) -> what to do about it, as an instruction."""

OF_FRAMES: Remedies = {
    "unusable scan": "do what the reader asks for there, or take the scan out of the folder",
    "no intrinsics": "add the intrinsics files of the layout, or give them in the job (reader)",
    "intrinsics of another image size": "give the intrinsics of the depth maps; for cropped ones raise "
    "views.max_off_centre",
    "no depth": "copy or export the depth maps of all frames; nothing, where only some were wanted",
    "unreadable depth": "copy or unpack the depth files again; they must be 16-bit grey PNG or TIFF, or PGM",
    "unreadable colour": "copy or unpack the pictures again, or leave colour out with views.colour=false",
    "unreadable *": "copy or export these files again",
    "no colour": "copy or export the pictures of all frames, or leave colour out with views.colour=false",
    "no pose": "export the poses of all frames; nothing, where tracking was lost",
    "named twice": "give each frame one name, or take the second out",
    "no * of its time": "check that all files of the recording were unpacked and have the times of one clock",
    "wrong shape": "export these frames again at the size that the intrinsics are for",
    "non-finite pose": "nothing, where tracking was lost; if it is most of a scan, export its poses again",
    "pose is no rigid motion": "write the poses row by row; these look transposed",
    "camera far from the origin": "give poses in metres, and take a common offset, as that of a map, away",
    "pose is not a rotation": "export the poses again as rotation and translation, without scale or mirror",
    "too little valid depth": "lower views.min_valid_depth where such frames are wanted; if it is most of a "
    "scan, check its unit and its depth files",
    "colour camera sees another view": "check the colour camera's intrinsics and where it sits",
    "picture of another shape": "name the camera of the pictures in the job (reader), or give pictures of "
    "the depth maps' view",
    "empty caption": "write the caption, or take it out of captions.json",
    "caption of no frame": "key view captions by the frames' ids, as this table names them",
}
"""Of `poma ingest`."""

OF_IMAGES: Remedies = {
    "undecodable image": "copy or download these files again, or convert them to JPEG or PNG",
    "tiny image": "lower gates.min_side_px where such pictures are wanted",
    "huge image": "raise gates.max_megapixels, and give the workers the memory for it",
    "no caption": "name the captions' field in inputs.caption, or set gates.require_caption=false and let "
    "`poma caption` describe the pictures",
    "caption is no text": "write captions as UTF-8 text, with words; gates.min_caption_letters and "
    "gates.min_letter_share say what counts as words",
    "duplicate image": "nothing, where pictures repeat; lower gates.duplicate_distance if these differ",
    "no image": "give every record a picture; what inputs.kind expects is in docs/your-data.md",
    "no such image": "check inputs.images_uri, to which the paths are relative, and that the files are there",
    "broken archive": "copy or download the archive again, or write it anew",
    "no depth or camera": "name their fields in inputs.depth and inputs.intrinsics, or choose a lifter that "
    "makes them",
    "unreadable depth": "write depth as 16-bit grey PNG or TIFF, or PGM",
    "picture of another shape": "give depth maps that show what the picture shows, upright",
    "absurd camera": "check inputs.intrinsics: fx, fy, cx, cy in pixels of the depth map",
    "absurd field of view": "check inputs.intrinsics, or widen gates.min_fov_deg and gates.max_fov_deg",
    "intrinsics of another image size": "give the intrinsics of the depth maps; for cropped ones raise "
    "gates.max_off_centre",
    "too little valid depth": "lower gates.min_valid_depth where such maps are wanted",
    "all far": "raise gates.max_median_depth_m where such views are wanted; check inputs.depth_unit_m",
    "flat depth": "lower gates.min_relief where walls alone are wanted; check inputs.depth_unit_m",
    "low confidence": "lower gates.min_confidence",
}
"""Of `poma lift`."""

OF_VIEWS: Remedies = {"no caption": "try another captioner, or other captioner.prompts"}
"""Of `poma caption`."""


def remedy(reason: str, remedies: Remedies) -> str:
    """What to do about a reason; of an own reader's or lifter's reasons its value tells."""
    found = (what for pattern, what in remedies.items() if fnmatchcase(reason, pattern))
    return next(found, f"see what was found in the column `value` of {REJECTS_FILE}")


def last_line(reasons: Counter[str], remedies: Remedies, place: str) -> str:
    """What a command prints last: the most frequent reason, its count, and what to do about it.

    Args:
        reasons: how many of each, at least one.
        place: of the table that lists each.
    """
    reason, count = reasons.most_common(1)[0]
    return (
        f"  most often {printable(reason)}, {count} of {reasons.total()} rejects: {remedy(reason, remedies)} "
        f"(each in {place})"
    )


def example(where: str, value: str) -> str:
    """One reject: where it is and what was found, in a line of bounded length."""
    text = printable(value)
    text = text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + "..."
    return f"{printable(where)} ({text})" if text else printable(where)
