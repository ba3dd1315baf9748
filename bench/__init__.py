"""Measurements, printed as they are made; none of them is a test."""
