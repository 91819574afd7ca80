"""Encoders by name: one family of architectures in each file."""
