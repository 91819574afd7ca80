"""A service that judges images over HTTP, with a live page."""
