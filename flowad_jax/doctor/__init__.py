"""Looks at an installation, a data folder or a workdir and says what is wrong and what to do."""
