"""What is published: canonical codec, Merkle trees, signed heads."""
