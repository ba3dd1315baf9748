"""Finds the nearest available volunteer for a case."""
