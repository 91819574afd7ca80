"""Normalizing flows as Linen modules around distrax bijectors."""
