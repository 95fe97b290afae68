"""Programs that show what the product is for, and the adapters that the demo adds up."""
