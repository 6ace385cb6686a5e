"""Draws of a posterior: approximations around its optima with importance weights, and NUTS where these do not hold."""
