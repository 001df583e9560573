"""The one failure that a person is told about.

Everything that the user of the stack can cure is a ``StackError`` whose text says how;
anything else is a bug and keeps its traceback.
"""


class StackError(Exception):
    """The command cannot go on; the text says what to change."""


class NotReady(Exception):
    """A server does not answer yet; asking again later is right."""
