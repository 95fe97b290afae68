"""Key files, rosters, TLS."""
