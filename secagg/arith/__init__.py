"""Lanes and fields, quantiser, keystream, Shamir: arithmetic on vectors, nothing of ours below it."""
