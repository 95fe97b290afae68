"""SQLite with group commit, and content-addressed blobs."""
