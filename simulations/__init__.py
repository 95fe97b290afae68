"""Dropouts and adversaries over the real protocol code."""
