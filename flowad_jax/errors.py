"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """A fault in the input, not in the program.

    The message is one line that names the culprit (file, key or value) and the fix.
    Scripts print it on standard error without a traceback and exit with status 1.
    """


class LayoutError(UserError):
    """A folder does not look as its data set does: whoever knows the layout adds it."""
