"""`poma finetune`: heads for questions and directions, and language models, on what an encoder sees."""
