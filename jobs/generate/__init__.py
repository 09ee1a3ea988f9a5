"""`poma generate`: answers of a trained language model to a data set of questions."""
