"""Protocol buffers to types and back."""
