"""Pairwise masking: the machines of client and coordinator."""
