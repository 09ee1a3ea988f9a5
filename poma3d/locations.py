"""Types of config fields that hold a path or URI. They mirror `plinth.locations`, which this package does not
import; a test keeps them equal."""

from typing import Annotated

Location = Annotated[str, "location"]
"""A path or URI."""
ModelLocation = Annotated[str, "location", "model"]
"""A folder, a URI, or a hub id."""
