"""Spreads: a regression of mean and spread on the members (EMOS), and how far standard deviations of members are believed."""
