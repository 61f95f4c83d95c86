"""Checkpoints: loading them, and finding what their networks are made of."""
