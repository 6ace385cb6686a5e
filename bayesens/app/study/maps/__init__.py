"""The maps of a study: its grid, members and models on it, what is known of errors there, and draws."""
