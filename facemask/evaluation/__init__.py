"""Measure a detector on annotated images."""
