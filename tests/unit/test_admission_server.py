"""virt-api as a process: it serves TLS on 127.0.0.1 and ends in order when told to."""

import ipaddress
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virt-api")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


async def serving(process: Process) -> None:
    """Return once the process says that it listens."""
    assert process.stderr is not None
    said = ""
    async for chunk in TextReceiveStream(process.stderr):
        said += chunk
        if "running on" in said:
            return
    raise AssertionError(f"virt-api ended before it served:\n{said}")


@pytest.mark.anyio
async def test_it_serves_tls_and_exits_with_0_on_sigterm(certificate: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cert, key = certificate
    arguments = ["api", "--port", str(port), "--tls-cert", str(cert), "--tls-key", str(key)]
    command = [sys.executable, "-m", "clusters.kubevirt", *arguments]
    with anyio.fail_after(30):
        async with await anyio.open_process(command, stderr=subprocess.PIPE) as process:
            await serving(process)
            trusted = ssl.create_default_context(cafile=str(cert))
            # The connection stays open: an idle one must not hold up the end.
            async with httpx.AsyncClient(verify=trusted) as client:
                answer = await client.get(f"https://127.0.0.1:{port}/healthz")
                process.send_signal(signal.SIGTERM)
                code = await process.wait()
    assert (answer.status_code, code) == (200, 0)
