"""The local stack: the real servers of the audit trail, without Docker."""
