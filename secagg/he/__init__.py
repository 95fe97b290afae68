"""The optional homomorphic encryption: one ciphertext of a mask secret for each contributor, and their sum."""
