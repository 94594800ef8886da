import ipaddress
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from clusters.local import pki
from clusters.local.kubeconfig import kubeconfig_of_certificate, kubeconfig_of_token

NAMES = ("127.0.0.1", "localhost", "kubernetes.default.svc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Under the widest umask there is, so that the modes of files are this code's doing.
    before = os.umask(0)
    try:
        folder = tmp_path_factory.mktemp("pki")
        ca = pki.authority(folder, "ca")
        pki.issue(ca, folder, "server", "virt-api", names=NAMES)
        pki.issue(ca, folder, "user", "jane", groups=("system:masters", "developers"))
        pki.authority(folder, "other-ca")
    finally:
        os.umask(before)
    return folder


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def policy(folder: Path, ca: str) -> PolicyBuilder:
    return PolicyBuilder().store(Store([certificate(folder, ca)])).time(datetime.now(UTC))


def named(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)]


def test_a_user_is_a_common_name_and_groups(folder: Path) -> None:
    user = certificate(folder, "user")
    assert named(user, NameOID.COMMON_NAME) == ["jane"]
    assert named(user, NameOID.ORGANIZATION_NAME) == ["system:masters", "developers"]


@pytest.mark.parametrize("name", NAMES)
def test_a_server_is_trusted_under_each_of_its_names(folder: Path, name: str) -> None:
    subject: x509.GeneralName
    try:
        subject = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    chain = policy(folder, "ca").build_server_verifier(subject).verify(certificate(folder, "server"), [])
    assert [named(link, NameOID.COMMON_NAME) for link in chain] == [["virt-api"], ["virtflow-ca"]]


def test_a_server_is_not_trusted_under_another_name_or_by_another_authority(folder: Path) -> None:
    server = certificate(folder, "server")
    with pytest.raises(VerificationError):
        policy(folder, "ca").build_server_verifier(x509.DNSName("example.org")).verify(server, [])
    with pytest.raises(VerificationError):
        policy(folder, "other-ca").build_server_verifier(x509.DNSName("localhost")).verify(server, [])


def test_a_user_is_trusted_as_a_client_by_the_own_authority_only(folder: Path) -> None:
    user = certificate(folder, "user")

    def verify(ca: str) -> x509.verification.VerifiedClient:
        # The rules of the web ask a client for a host name; Kubernetes' clients have none.
        rules = policy(folder, ca).extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
        )
        return rules.build_client_verifier().verify(user, [])

    assert len(verify("ca").chain) == 2
    with pytest.raises(VerificationError):
        verify("other-ca")


def test_what_is_issued_cannot_issue(folder: Path) -> None:
    for name in ("server", "user"):
        extensions = certificate(folder, name).extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False


def test_certificates_outlive_any_cluster_and_clocks_that_differ_a_little(folder: Path) -> None:
    now = datetime.now(UTC)
    for name in ("ca", "server", "user"):
        made = certificate(folder, name)
        assert made.not_valid_before_utc < now - timedelta(minutes=4)
        assert made.not_valid_after_utc > now + timedelta(days=365)


def test_keys_are_of_their_certificates_and_for_their_owner_alone(folder: Path) -> None:
    keys = list(folder.glob("*.key"))
    assert {key.stem for key in keys} == {"ca", "server", "user", "other-ca"}
    for key in keys:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        private = load_pem_private_key(key.read_bytes(), None)
        assert private.public_key() == certificate(folder, key.stem).public_key()


def test_an_authority_is_loaded_as_it_was_made(folder: Path) -> None:
    before = (folder / "ca.crt").read_bytes()
    loaded = pki.authority(folder, "ca")
    assert loaded.certificate == certificate(folder, "ca")
    assert (folder / "ca.crt").read_bytes() == before
    pki.issue(loaded, folder, "late", "late", names=("localhost",))
    verifier = policy(folder, "ca").build_server_verifier(x509.DNSName("localhost"))
    assert len(verifier.verify(certificate(folder, "late"), [])) == 2
    for suffix in ("crt", "key"):
        (folder / f"late.{suffix}").unlink()


def test_what_was_issued_is_issued_once(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path, "ca")
    first = pki.issue(ca, tmp_path, "user", "jane").cert.read_bytes()
    assert pki.issue(ca, tmp_path, "user", "jane").cert.read_bytes() == first
    # One whose certificate is missing was interrupted while it was made.
    (tmp_path / "user.crt").unlink()
    again = pki.issue(ca, tmp_path, "user", "jane")
    private = load_pem_private_key(again.key.read_bytes(), None)
    assert private.public_key() == certificate(tmp_path, "user").public_key()


def test_kubeconfigs_are_for_their_owner_alone_and_name_what_they_are_given(tmp_path: Path) -> None:
    pair = pki.Pair(tmp_path / "u.crt", tmp_path / "u.key")
    kubeconfig_of_certificate(tmp_path / "user.yaml", "https://127.0.0.1:1", tmp_path / "ca.crt", pair)
    kubeconfig_of_token(tmp_path / "robot.yaml", "https://127.0.0.1:1", tmp_path / "ca.crt", "a token")
    users = []
    for name in ("user", "robot"):
        file = tmp_path / f"{name}.yaml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        config = yaml.safe_load(file.read_text())
        assert config["clusters"][0]["cluster"] == {
            "server": "https://127.0.0.1:1",
            "certificate-authority": str(tmp_path / "ca.crt"),
        }
        users += [user["user"] for user in config["users"]]
    assert users == [{"client-certificate": str(pair.cert), "client-key": str(pair.key)}, {"token": "a token"}]
