"""What came of a simulated session, for people: a page with plots, and a summary for the terminal."""
