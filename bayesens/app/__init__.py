"""The program around the library: command line, study file, report."""
