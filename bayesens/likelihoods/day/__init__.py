"""The observations of one time at several places: their covariance, its likelihood, and what they say of other places."""
