"""three.js, which draws the pages' 3D, as trimesh carries it in its installed package.

trimesh writes single pages of its own from a template that holds the library (`trimesh.viewer.notebook`); the
library alone is taken from it when a page is written, so that none of its source lies here.
"""

from __future__ import annotations

from functools import cache

from plinth.errors import ConfigError

TEMPLATES = "templates/viewer.zip"
PAGE = "viewer.html.template"
LICENCE = "/**\n * @license"
"""The library begins with its own licence, which stays with it."""
END = '"__esModule",{value:!0})}));'
"""What its build as a plain script ends with."""
FORBIDDEN = ("</script", "<!--")
"""What would end the script that holds it."""


@cache
def three_js() -> str:
    """The library as a script that defines `THREE`.

    Raises:
        ConfigError: the installed trimesh keeps it in another way.
    """
    import trimesh
    from trimesh import resources, util

    packed = util.decompress(resources.get_bytes(TEMPLATES), file_type="zip")
    page = packed[PAGE].read().decode() if PAGE in packed else ""
    start, end = page.find(LICENCE), page.find(END)
    library = page[start : end + len(END)] if 0 <= start < end else ""
    if not library or any(text in library for text in FORBIDDEN):
        raise ConfigError(
            f"trimesh {trimesh.__version__} keeps no three.js where its version 5.2 has it.",
            "Install a version that fits: pip install 'trimesh~=5.2'.",
        )
    return library
