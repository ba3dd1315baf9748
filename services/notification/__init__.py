"""Tells the volunteer, once."""
