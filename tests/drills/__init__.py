"""Failure drills over real processes: they are killed, held up and lied to, and what was promised is counted after."""
