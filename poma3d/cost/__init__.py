"""Operations and activation memory of a stage, counted without running it."""
