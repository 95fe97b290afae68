"""PEFT adapter files to vectors and back."""
