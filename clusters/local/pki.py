"""The cluster's certificates, made before kwokctl looks for them.

kwokctl would make one pair and give it to every component, so that the scheduler, kwok and kubectl are one
user in the audit log. It makes none when its `pki` folder is there already: so it gets ours, where each
component has a name of its own, and the aggregator a CA of its own (a client certificate signed by the
clients' CA could otherwise pass for the aggregator and claim to be anyone).
"""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Pair", "create_authority", "issue", "load_authority"]

LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A CA: its pair of files and what is needed to sign with it."""

    pair: Pair
    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey


def create_authority(folder: Path, name: str) -> Authority:
    """Make the CA `<name>.crt` and `<name>.key`."""
    key = _new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"virtflow-{name}")])
    certificate = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_write(folder, name, certificate, key), certificate, key)


def load_authority(folder: Path, name: str) -> Authority:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return Authority(pair, x509.load_pem_x509_certificate(pair.cert.read_bytes()), key)


def issue(
    ca: Authority,
    folder: Path,
    name: str,
    common_name: str,
    *,
    groups: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
) -> Pair:
    """Make `<name>.crt` and `<name>.key` for a user (common name, groups) that may serve as `names` (DNS or IP)."""
    key = _new_key()
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, ca.certificate.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.private_key.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
    return _write(folder, name, builder.sign(ca.private_key, hashes.SHA256()), key)


def _new_key() -> rsa.RSAPrivateKey:
    # RSA because kwokctl has the apiserver sign service account tokens with admin.key, and RS256 is what
    # every verifier of tokens knows.
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _builder(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(folder: Path, name: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(pem)
    return pair
