"""Labels, secrets, sealing, signing, key derivation, randomness."""
