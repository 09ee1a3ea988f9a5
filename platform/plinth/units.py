"""Units that sizes and durations are shown in."""

MIB = 2**20
GIB = 2**30
SECONDS_PER_HOUR = 3600
