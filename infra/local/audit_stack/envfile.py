"""The file ``audit.env``: how the application reaches this stack.

Written whole, with mode 0600, after the servers that were asked for are ready; it names
every server of the stack, so that one started later is found.
"""

from audit_stack.credentials import (
    import_key_file,
    master_key_file,
    signing_key_file,
    verifier_keys_file,
    write_private,
)
from audit_stack.servers import broker, database, objects, registry, search
from audit_stack.stack import Stack

ARCHIVE_BUCKET = "audit-archive"
VAULT_BUCKET = "audit-vault"
# A name that stays on this machine (RFC 6761 section 6.3).
LOG_ORIGIN = "audit-trail.localhost"


def application_settings(stack: Stack) -> dict[str, str]:
    """Return the application's settings for this stack."""
    credentials = stack.credentials
    return {
        "AUDIT_KAFKA_BOOTSTRAP": broker.bootstrap(stack),
        "AUDIT_REGISTRY_URL": registry.url(stack),
        "AUDIT_DATABASE_URL": database.url(stack, "audit_writer", credentials.postgres_writer),
        "AUDIT_DATABASE_ADMIN_URL": database.url(
            stack, database.ADMIN_ROLE, credentials.postgres_admin
        ),
        "AUDIT_DATABASE_READER_URL": database.url(
            stack, "audit_reader", credentials.postgres_reader
        ),
        "AUDIT_DATABASE_REDACTOR_URL": database.url(
            stack, "audit_redactor", credentials.postgres_redactor
        ),
        "AUDIT_SIGNER_DATABASE_URL": database.url(
            stack, "audit_signer", credentials.postgres_signer
        ),
        "AUDIT_AUDITOR_DATABASE_URL": database.url(
            stack, "audit_auditor", credentials.postgres_auditor
        ),
        "AUDIT_ELASTICSEARCH_URL": search.url(stack),
        "AUDIT_S3_ENDPOINT_URL": objects.url(stack),
        "AUDIT_S3_REGION": objects.REGION,
        "AUDIT_S3_ACCESS_KEY_ID": credentials.s3_access_key_id,
        "AUDIT_S3_SECRET_ACCESS_KEY": credentials.s3_secret_access_key,
        "AUDIT_S3_ARCHIVE_BUCKET": ARCHIVE_BUCKET,
        "AUDIT_S3_VAULT_BUCKET": VAULT_BUCKET,
        "AUDIT_KEY_FILE": str(master_key_file(stack.layout)),
        "AUDIT_IMPORT_KEY_FILE": str(import_key_file(stack.layout)),
        "AUDIT_LOG_ORIGIN": LOG_ORIGIN,
        "AUDIT_SIGNING_KEY_FILE": str(signing_key_file(stack.layout)),
        "AUDIT_VERIFIER_KEYS_FILE": str(verifier_keys_file(stack.layout)),
    }


def write_env_file(stack: Stack) -> None:
    """Write ``audit.env``, replacing an earlier one."""
    lines = [f"{key}={value}\n" for key, value in application_settings(stack).items()]
    write_private(stack.layout.env_file, "".join(lines))
