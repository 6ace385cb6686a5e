"""Fitted estimators as plain arrays and loops over many rows, each equal to the estimator's own predict."""
