"""Metrics, scoring of whole data sets, and what a person looks at."""
