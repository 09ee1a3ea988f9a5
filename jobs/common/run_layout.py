"""Where things lie: the shipped job files, and the names inside a run's folder."""

from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
"""The job files that come with the package."""

STAGES = ("warmup", "main")
"""The two stages in the order in which they run: their folders, and their sections in the job."""
CONFIG_KEY = "config.yaml"
"""The resolved job."""
PINS_KEY = "data.json"
"""The versions of the data sets that the run reads."""
