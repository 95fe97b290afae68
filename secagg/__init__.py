"""Secure aggregation of LoRA adapters; floors and import rules in docs/architecture.md."""
