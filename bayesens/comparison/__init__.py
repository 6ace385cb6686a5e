"""The same held-out rows for all models, tables with block intervals, and the ladder from one model to another.

``compare`` runs the folds, ``folds`` says which rows are held out in them, ``common_rows`` lays the scores side by side,
``tables`` has means and paired differences, ``bootstrap`` their intervals.
"""
