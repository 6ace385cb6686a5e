"""Doors of an ensemble beside a plain table: long tables, quantiles and samples, and members with a standard deviation."""
