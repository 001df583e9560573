"""Runs the real servers of the audit trail on this machine, without Docker."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this is the message for older ones
    sys.exit("the stack needs Python 3.11 or newer; this is " + sys.version.split()[0])

try:
    from audit_stack.cli import main
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("audit_stack"):
        raise
    sys.exit(
        "the stack needs the package " + error.name + ": run make setup, "
        "or python -m pip install -e '.[stack]'"
    )

if __name__ == "__main__":
    main()
