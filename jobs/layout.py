"""What a run's folder is called by."""

STAGES = ("warmup", "main")
"""The two stages in the order in which they run: their folders, and their sections in the job."""
CONFIG_KEY = "config.yaml"
"""The resolved job."""
PINS_KEY = "data.json"
"""The versions of the data sets that the run reads."""
