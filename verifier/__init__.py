"""Checks of a published record."""
