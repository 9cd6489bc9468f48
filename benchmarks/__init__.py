"""Measurements of speed, and what makes the bundled data."""
