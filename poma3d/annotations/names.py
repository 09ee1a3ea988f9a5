"""Names that the command line offers, without loading the readers."""

KINDS = ("scanqa", "sqa3d", "hypo3d", "msnn", "scanrefer", "nr3d", "sr3d", "retrieval", "localisation")
"""Of annotation files; `poma3d.annotations.read.kinds` has a reader for each."""
ROOMS = "rooms"
"""Questions about procedural rooms, of `poma questions`."""
TASKS = ("scanqa", "sqa3d", "hypo3d", "msnn", "localisation", ROOMS)
"""What predictions can be scored for."""
UNKNOWN_ANSWERS = ("wrong", "class_u", "impossible")
"""`poma3d.annotations.vocabulary.UnknownAnswers`."""
TYPE_RULES = ("prefix", "token", "word")
"""`poma3d.annotations.question_types.TypeRule`."""
DIRECTIONS = (4, 8)
"""How many MSNN has."""
