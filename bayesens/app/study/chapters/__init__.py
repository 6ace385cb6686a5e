"""The chapters of a study's report, one a file: each is written from the results, and knows nothing of the others."""
