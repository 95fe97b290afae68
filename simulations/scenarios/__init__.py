"""Scenarios: people, dropouts, lines and faults, and how a session of one is played."""
