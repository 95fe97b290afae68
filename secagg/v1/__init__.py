"""Generated from protos/secagg/v1 by protos/generate.py."""
