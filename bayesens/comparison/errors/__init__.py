"""How the errors of members depend on each other, and how far that can be known."""
