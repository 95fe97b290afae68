"""Sessions over a grid of dropouts and corruption, next to theory."""
