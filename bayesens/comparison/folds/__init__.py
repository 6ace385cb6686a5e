"""Which rows are held out, what is done in a fold, and what folds have to say."""
