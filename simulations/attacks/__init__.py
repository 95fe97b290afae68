"""Attacks on sessions: liars as wrappers around the real machines, replayed and explained."""
