"""Teeth: one-line weakenings of the code, and the tests that must notice each of them."""
