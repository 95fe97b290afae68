"""What an adversary knows, what has to hold, and what the verifier says."""
