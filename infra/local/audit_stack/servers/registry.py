"""The schema registry: Apicurio with the interface of Confluent's (API v7).

Its schemas live in a PostgreSQL database of their own, so it may be stopped, killed and
started alone.
"""

from audit_stack.servers import database
from audit_stack.servers.base import Server, jvm_options, maven_version, probe_http
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "registry"


def url(stack: Stack) -> str:
    """Return the address for registry clients."""
    return f"http://127.0.0.1:{stack.settings.port('registry')}/apis/ccompat/v7"


def _prepare(stack: Stack) -> None:
    folder = stack.account.make_folder(stack.folder(NAME))
    stack.account.make_folder(folder / "tmp")


def _command(stack: Stack) -> Command:
    folder = stack.folder(NAME)
    return Command(
        argv=[
            str(stack.registry_java_home / "bin" / "java"),
            f"-Xmx{stack.settings.registry_heap}",
            *jvm_options(stack),
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            "-jar",
            str(stack.programs[NAME] / "quarkus-run.jar"),
        ],
        directory=folder,
        environment={
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "postgresql",
            "APICURIO_DATASOURCE_URL": (
                f"jdbc:postgresql://127.0.0.1:{stack.settings.port('postgres')}/"
                f"{database.REGISTRY_DATABASE}"
            ),
            "APICURIO_DATASOURCE_USERNAME": database.REGISTRY_ROLE,
            "APICURIO_DATASOURCE_PASSWORD": stack.credentials.postgres_registry,
            # Left alone, it takes 20 to 100 of PostgreSQL's 100 connections.
            "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "2",
            "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "2",
            "APICURIO_DATASOURCE_JDBC_MAX_SIZE": "10",
            # After a restart of PostgreSQL every pooled connection is dead: without a look before
            # use, each of them fails one request.
            "QUARKUS_DATASOURCE_POSTGRESQL_JDBC_VALIDATE_ON_BORROW": "true",
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(stack.settings.port("registry")),
            "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
            # Left alone, it listens on port 9000 of every address.
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": str(stack.settings.port("registry_management")),
        },
    )


def _probe(stack: Stack) -> None:
    probe_http(f"{url(stack)}/subjects")


SERVER = Server(
    name=NAME,
    title="schema registry",
    version=maven_version(NAME),
    ports=("registry", "registry_management"),
    prepare=_prepare,
    command=_command,
    probe=_probe,
    after=("postgres",),
)
