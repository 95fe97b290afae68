"""The state machines, without input or output."""
