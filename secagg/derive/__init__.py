"""What follows from published values alone: masking graph, degree and threshold."""
