"""A picture of what a version accepted beside what it rejected: one row for each, a few images in it."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from poma3d.scenes.views import encode_colour

THUMBNAIL_PX = 112
THUMBNAIL_QUALITY = 75
SHOWN = 8
"""Images in a row."""
EXAMPLES = 4
"""Rows of the reject table that are shown of a reason."""
LINE_PX = 16
GAP_PX, LABEL_PX, VALUE_PX = 8, 22, 16
VALUE_CHARACTERS = 20
TABLE_PX = 600
PAPER, INK, MUTED = "#ffffff", "#1c2430", "#5b6675"


def thumbnail(rgb: np.ndarray) -> str:
    """A small JPEG of a picture uint8 [h, w, 3], as text for a commit."""
    scale = THUMBNAIL_PX / max(rgb.shape[:2])
    height, width = (max(1, round(edge * scale)) for edge in rgb.shape[:2])
    return base64.b64encode(encode_colour(rgb, height, width, THUMBNAIL_QUALITY)).decode()


def filter_sheet(accepted: Sequence[bytes], rejected: dict[str, Sequence[tuple[str, str]]]) -> bytes:
    """PNG of the rows.

    Args:
        accepted: JPEGs.
        rejected: reason -> (thumbnail, value) of some images.
    """
    rows: list[tuple[str, list[tuple[bytes, str]]]] = [("accepted", [(jpeg, "") for jpeg in accepted])]
    for reason, shown in sorted(rejected.items()):
        rows.append((reason, [(base64.b64decode(text), value) for text, value in shown]))
    step = THUMBNAIL_PX + GAP_PX
    row_px = LABEL_PX + THUMBNAIL_PX + VALUE_PX + GAP_PX
    sheet = Image.new("RGB", (GAP_PX + SHOWN * step, GAP_PX + len(rows) * row_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (label, images) in enumerate(rows):
        top = GAP_PX + number * row_px
        draw.text((GAP_PX, top), label if images else f"{label}: none to show", fill=INK)
        for place, (jpeg, value) in enumerate(images[:SHOWN]):
            left = GAP_PX + place * step
            with Image.open(io.BytesIO(jpeg)) as image:
                image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
                sheet.paste(image, (left, top + LABEL_PX))
            draw.text((left, top + LABEL_PX + THUMBNAIL_PX), value[:VALUE_CHARACTERS], fill=MUTED)
    return _png(sheet)


def table_lines(rejects: Sequence[Mapping[str, str]], accepted: int) -> list[str]:
    """A reject table in a few lines: how many of each reason, and the first of them.

    Args:
        rejects: rows with the keys reason, value and place.
        accepted: how many were not rejected.
    """
    counts = Counter(row["reason"] for row in rejects)
    lines = [f"{accepted} accepted, {len(rejects)} rejected"]
    for reason, count in counts.most_common():
        lines += ["", f"{count} x {reason}"]
        shown = [row for row in rejects if row["reason"] == reason][:EXAMPLES]
        lines += [f"    {row['value'] or '-'}   {row['place'].rsplit('/', 1)[-1]}" for row in shown]
        lines += [f"    and {count - len(shown)} more"] if count > len(shown) else []
    return lines


def below(sheet: bytes, examples: bytes, lines: Sequence[str]) -> bytes:
    """PNG of a contact sheet with the pictures of `filter_sheet` under it, and a table beside those."""
    with Image.open(io.BytesIO(sheet)) as top, Image.open(io.BytesIO(examples)) as pictures:
        table = Image.new("RGB", (TABLE_PX, GAP_PX + LINE_PX * len(lines)), PAPER)
        draw = ImageDraw.Draw(table)
        for number, line in enumerate(lines):
            colour = MUTED if line.startswith(" ") else INK
            draw.text((GAP_PX, GAP_PX + number * LINE_PX), line, fill=colour)
        width = max(top.width, pictures.width + table.width)
        height = top.height + max(pictures.height, table.height)
        whole = Image.new("RGB", (width, height), PAPER)
        whole.paste(top.convert("RGB"), (0, 0))
        whole.paste(pictures, (0, top.height))
        whole.paste(table, (pictures.width, top.height))
        return _png(whole)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
