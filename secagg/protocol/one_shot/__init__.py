"""One-shot sessions: contributors speak once; a committee or a key authority opens the sum."""
