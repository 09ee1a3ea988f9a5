"""Types of config fields that count something. They mirror `plinth.counts`, which is not imported here;
a test keeps them equal."""

from typing import Annotated

Count = Annotated[int, "least 1"]
"""1 or more."""
CountOrZero = Annotated[int, "least 0"]
"""0 or more."""
