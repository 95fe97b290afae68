"""Simulations: many clients, dropouts, liars and crashes, over the protocol's real machines, in virtual time."""
