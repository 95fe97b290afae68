"""What the noise that a session declares comes to: between records and the package ``dp``."""
