"""A language model that answers from an encoder's tokens: conversations, scenes, model, stage, answers."""
