"""Functions on arrays that no library has."""
