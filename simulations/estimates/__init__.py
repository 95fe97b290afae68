"""What theory says of success, corruption and noise, and what sessions of any size cost."""
