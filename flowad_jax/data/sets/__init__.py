"""Data sets by name: one layout on disk in each file."""
