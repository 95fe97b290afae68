"""Ports, the driver that steps, commits and dispatches, and the work on vectors."""
