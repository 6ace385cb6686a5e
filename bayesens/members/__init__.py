"""Train members without leakage, and say where they may be used."""
