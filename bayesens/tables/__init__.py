"""A table as it was written: files, headers, dates, codes for missing values, units, and which column is what.

``reading`` reads a file, ``columns`` turns one column into numbers, labels or times.
"""
