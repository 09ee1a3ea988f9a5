"""`poma finetune`: heads for questions and directions on the features of a frozen encoder."""
