"""Reading, checking, converting and writing weight files."""
