"""Decoders of foreign bytes under a coverage-guided fuzzer; see ``__main__``."""
