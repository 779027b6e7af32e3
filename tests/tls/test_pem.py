"""Certificates and keys in files: each accepted kind, and a message for each other one."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from seance.errors import ConfigError
from seance.net import ServerTls
from seance.net.pem import load_authorities, read_authorities, read_credentials
from tests.certificates import Authority, CertificateFiles

KINDS: dict[str, Callable[[], Any]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_apart", [True, False], ids=["two files", "one file"])
def test_a_certificate_and_its_key_are_read(authority: Authority, kind: str, is_apart: bool) -> None:
    key = KINDS[kind]()
    files = authority.issue("localhost", key=key)
    read = read_credentials(files.chain, files.key) if is_apart else read_credentials(files.both)
    assert read.chain == (files.certificate,)
    assert read.key.public_key() == key.public_key()


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_keys_in_the_older_form_are_read(authority: Authority, kind: str) -> None:
    key = KINDS[kind]()
    files = authority.issue("localhost", key=key)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert f"BEGIN {kind.upper()} PRIVATE KEY".encode() in text
    # openssl ecparam -genkey puts a block with the curve before the key.
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    files.key.write_bytes(parameters + text)
    assert read_credentials(files.chain, files.key).key.public_key() == key.public_key()


def test_intermediate_certificates_are_read(tmp_path: Path) -> None:
    between = Authority(tmp_path, "between", parent=Authority(tmp_path))
    files = between.issue("localhost")
    assert read_credentials(files.chain, files.key).chain == (files.certificate, between.certificate)


def test_several_authorities_may_be_in_one_file(tmp_path: Path) -> None:
    one, other = Authority(tmp_path, "one"), Authority(tmp_path, "other")
    one.file.write_bytes(b"# ours\n" + one.file.read_bytes() + b"\n# theirs\n" + other.file.read_bytes())
    assert read_authorities(one.file) == (one.certificate, other.certificate)


def without_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    return files.chain, None


def swapped(files: CertificateFiles) -> tuple[Path, Path | None]:
    return files.key, files.chain


def lost_certificate(files: CertificateFiles) -> tuple[Path, Path | None]:
    files.chain.unlink()
    return files.chain, files.key


def lost_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    files.key.unlink()
    return files.chain, files.key


def no_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    return files.chain, files.chain


def broken_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    files.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    return files.chain, files.key


def locked_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    key = ec.generate_private_key(ec.SECP256R1())
    for_format = BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, for_format))
    return files.chain, files.key


def locked_older_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    key = ec.generate_private_key(ec.SECP256R1())
    for_format = BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, for_format))
    return files.chain, files.key


def odd_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    key = dsa.generate_private_key(1024)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files.chain, files.key


def another_key(files: CertificateFiles) -> tuple[Path, Path | None]:
    key = ec.generate_private_key(ec.SECP256R1())
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files.chain, files.key


def broken_certificate(files: CertificateFiles) -> tuple[Path, Path | None]:
    files.chain.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return files.chain, files.key


def folder(files: CertificateFiles) -> tuple[Path, Path | None]:
    return files.chain.parent, files.key


def pipe(files: CertificateFiles) -> tuple[Path, Path | None]:
    files.key.unlink()
    os.mkfifo(files.key)
    return files.chain, files.key


def too_long(files: CertificateFiles) -> tuple[Path, Path | None]:
    files.chain.write_bytes(b"#" * (1024 * 1024 + 1))
    return files.chain, files.key


WRONG = {
    without_key: "The file C contains no private key in PEM format; name the file of the key too.",
    swapped: "The certificate file K contains no certificate in PEM format.",
    lost_certificate: "The certificate file C cannot be read (No such file or directory).",
    lost_key: "The key file K cannot be read (No such file or directory).",
    no_key: "The file C contains no private key in PEM format.",
    broken_key: "The private key in K cannot be read.",
    locked_key: "The key in K has a passphrase; remove it and make the file readable by its owner.",
    locked_older_key: "The key in K has a passphrase; remove it and make the file readable by its owner.",
    odd_key: "The private key in K is not an RSA, EC or Ed25519 key, which TLS requires.",
    another_key: "The key in K does not belong to the first certificate in C.",
    broken_certificate: "The certificate file C contains no certificate in PEM format.",
    folder: "The certificate file F cannot be read (Is a directory).",
    pipe: "The key file K cannot be read (it is a pipe, and its writer did not finish within 2 s).",
    too_long: "The certificate file C is longer than 1048576 bytes.",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_invalid_files_are_one_message(
    authority: Authority, make: Callable[[CertificateFiles], tuple[Path, Path | None]]
) -> None:
    files = authority.issue("localhost")
    cert_file, key_file = make(files)
    with pytest.raises(ConfigError) as caught:
        read_credentials(cert_file, key_file)
    sentence = caught.value.message.replace(str(files.chain), "C").replace(str(files.key), "K")
    assert sentence.replace(str(files.chain.parent), "F") == WRONG[make]


def test_invalid_authorities_are_one_message(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"^The authority file .* contains no certificate in PEM format\.$"):
        read_authorities(tmp_path / "ca.pem")


def test_a_short_key_is_one_message(authority: Authority) -> None:
    files = authority.issue("localhost", key=rsa.generate_private_key(65537, 1024))
    tls = ServerTls(files.chain, files.key)
    with pytest.raises(ConfigError, match=r"^The certificate in .*chain.pem cannot be used: .*too small\.$"):
        tls.load()


@pytest.mark.parametrize("error", [AttributeError, PermissionError])
def test_credentials_are_loaded_without_files_in_memory(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    def fail(name: str) -> int:
        raise error

    monkeypatch.setattr(os, "memfd_create", fail, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = authority.issue("localhost")
    before = set(tmp_path.iterdir())
    ServerTls(files.chain, files.key).load()
    assert set(tmp_path.iterdir()) == before


def test_the_authorities_of_the_system_are_found_by_a_python_of_another_system(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = ssl.DefaultVerifyPaths(None, str(tmp_path / "empty"), "", "", "", "")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", lambda context: None)
    monkeypatch.setattr("seance.net.pem.SYSTEM_BUNDLES", (str(tmp_path / "no"), str(authority.file)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_authorities(context, None)
    assert context.get_ca_certs(True) == [authority.certificate.public_bytes(Encoding.DER)]
