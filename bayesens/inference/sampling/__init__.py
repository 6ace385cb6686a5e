"""Draws of a posterior: importance weights around its optima, chains where these do not hold, weights around slow chains."""
