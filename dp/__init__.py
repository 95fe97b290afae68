"""Differential privacy: mechanisms, samplers, accounting."""
