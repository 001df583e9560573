"""A certificate authority of a test run, and lines that end TLS before a plain HTTP server."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = "127.0.0.1"
_HEAD_MAX_BYTES = 65_536


class Authority:
    """A certificate authority of one test run; ``ca_file`` is what clients trust."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(_pem(self._certificate))
        self.ca_file.chmod(0o644)

    def certificate_for_loopback(self) -> tuple[bytes, bytes]:
        """(private key, certificate) of a server on 127.0.0.1, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, LOOPBACK)])
        certificate = (
            self._builder(name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return private, _pem(certificate)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class TlsLine:
    """Ends TLS before a plain HTTP server; with a user it asks for basic authentication.

    The password is checked on the first request of each connection.
    """

    def __init__(
        self,
        target: tuple[str, int],
        context: ssl.SSLContext,
        *,
        user: str = "",
        password: str = "",
    ) -> None:
        self._target = target
        self._context = context
        token = b64encode(f"{user}:{password}".encode())
        self._wanted = b"authorization: basic " + token.lower() if user else b""
        self._token = token
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0
        self.refused = 0

    def open(self) -> None:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._join, LOOPBACK, 0, ssl=self._context), self._loop
        ).result(10)
        self.port = server.sockets[0].getsockname()[1]

    def close(self) -> None:
        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back: asyncio.StreamWriter | None = None
        try:
            head = b""
            if self._wanted:
                head = await reader.readuntil(b"\r\n\r\n")
                if self._wanted not in head.lower() or self._token not in head:
                    self.refused += 1
                    writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
                    await writer.drain()
                    return
            there, back = await asyncio.open_connection(*self._target)
            back.write(head)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, back):
                if end is not None:
                    end.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_HEAD_MAX_BYTES):
        target.write(chunk)
        await target.drain()
    raise ConnectionResetError  # one side closed: close both


@contextmanager
def secured_line(
    authority: Authority, url: str, *, user: str = "", password: str = ""
) -> Iterator[str]:
    """The base URL of a line to the server of ``url``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key, certificate = authority.certificate_for_loopback()
    pem = authority.ca_file.with_name(f"line-{secrets.token_hex(4)}.pem")
    pem.write_bytes(key + certificate)
    context.load_cert_chain(pem)
    target = urlsplit(url)
    line = TlsLine(
        (target.hostname or "", target.port or 80), context, user=user, password=password
    )
    line.open()
    try:
        yield f"https://{LOOPBACK}:{line.port}{target.path}"
    finally:
        line.close()
