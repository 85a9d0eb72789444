"""What a transport proves about the peer, and what it needs before a session may begin on it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import socket
import ssl
import stat
from collections.abc import Collection
from pathlib import Path
from struct import Struct

from holdfast.errors import NotTrusted, UsageError
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.keys import KEY_BYTES, NO_KEY, X25519
from holdfast.hold.transports.target import Target, is_loopback

UCRED = Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""


def _at_once(path: str, flags: int) -> int:
    """Opening a named pipe would wait for its writer, and every session of the loop with it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _shown(path: str) -> str:
    """A path as an error may show it: not if it looks like the key itself, which belongs into no log.

    A key as text (hexadecimal, base64) is no shorter than the key, has no dot and begins with no folder.
    """
    if len(path) < KEY_BYTES or "." in path or os.path.isdir(os.path.dirname(path)):
        return path or "''"
    return "a file (not named here: text is a path, and this may be a key, which is given as bytes)"


def private_file(path: str | os.PathLike[str]) -> bytes:
    """The contents of a file with a secret.

    Raises:
        UsageError: others than its owner may read it, it is no regular file, or it cannot be read.
    """
    if "\0" in os.fspath(path):
        raise UsageError("The path of a key has a zero in it: give the key itself as bytes.")
    try:
        with open(path, "rb", opener=_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"{os.fspath(path)} is not a regular file: write the key into one.")
            if stat.S_IMODE(mode) & 0o077:
                raise UsageError(f"{os.fspath(path)} may be read by others than its owner: chmod 600 it.")
            return file.read(1 << 20)
    except OSError as error:
        shown = _shown(os.fspath(path))
        raise UsageError(f"The key in {shown} cannot be read: {error.strerror}.") from None  # it has the path


def key_of(psk: bytes | str | os.PathLike[str] | None) -> bytes:
    """A pre-shared key: 32 octets or more, or the path of a file with them; without one, 32 zero octets.

    Raises:
        UsageError: too short, all zeros, or a file that is not private.
    """
    if psk is None:
        return NO_KEY
    if not isinstance(psk, (bytes, str, os.PathLike)):
        raise UsageError(f"psk is a {type(psk).__name__}: give bytes, or the path of a file with them.")
    key = psk if isinstance(psk, bytes) else private_file(psk)
    if len(key) < KEY_BYTES:
        raise UsageError(f"The pre-shared key has {len(key)} bytes: give at least {KEY_BYTES} random ones.")
    if not any(key):
        raise UsageError("The pre-shared key is all zeros, which stands for none: give random bytes.")
    return key


def channel(target: Target, key: bytes, binding: bytes = b"") -> Channel:
    """What a handshake on a transport to this target is bound to."""
    mode = {"tls": "tls", "unix": "unix"}.get(target.scheme) or ("plain" if key is NO_KEY else "psk")
    return Channel(mode, binding, key, X25519, os.urandom)


def check_plain(ip: str, key: bytes) -> None:
    """Without TLS and without a key, only this host may be talked to.

    Raises:
        UsageError: the address is another host's.
    """
    if key is NO_KEY and not is_loopback(ip):
        raise UsageError(
            f"A session with {ip} would be neither encrypted nor authenticated: use tls://, or give psk=."
        )


def peer_user(sock: socket.socket) -> int:
    """The user of the process at the other end of a Unix socket, as the kernel saw it connect or listen."""
    _, uid, _ = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return int(uid)


def check_creds(sock: socket.socket, peers: Collection[int]) -> None:
    """The process at the other end of a Unix socket belongs to one of these users.

    Raises:
        NotTrusted: it does not.
    """
    uid = peer_user(sock)
    if uid not in peers:
        raise NotTrusted(
            f"The process at the other end belongs to user {uid}, who is not among {sorted(peers)}: "
            "if it may be talked to, name him in peers=."
        )


def _no_passphrase() -> str:
    """Asked by OpenSSL, which would otherwise ask whoever sits at the terminal, and wait."""
    raise UsageError(
        "The key of the certificate has a passphrase: write it without one, into a file of mode 600."
    )


def check_client_tls(context: ssl.SSLContext, key: bytes) -> None:
    """A context with which a client knows its server: by its certificate, or by the pre-shared key.

    Raises:
        UsageError: it does not.
    """
    if not isinstance(context, ssl.SSLContext):
        raise UsageError(f"tls is a {type(context).__name__}: give an ssl.SSLContext.")
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise UsageError("The TLS context is a server's: give one of ssl.create_default_context().")
    if context.maximum_version not in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3):
        raise UsageError("The TLS context allows no TLS 1.3, which a session needs.")
    # With a key, whoever stands between the two is found out: its certificate is not the server's.
    if context.verify_mode is not ssl.CERT_REQUIRED and key is NO_KEY:
        raise UsageError(
            "The TLS context does not verify the server, which anybody could then be: give one of "
            "ssl.create_default_context(cafile=...), or psk= as well."
        )


def certificate_hash(der: bytes) -> bytes:
    """What binds a handshake to the TLS connection it runs in: SHA-256 of the server's certificate.

    Source: RFC 5929 section 4 (tls-server-end-point), with SHA-256 whatever the certificate is signed with.
    The standard library has no keying-material exporter.
    """
    return hashlib.sha256(der).digest()


def server_tls(
    certificate: str | os.PathLike[str], key: str | os.PathLike[str]
) -> tuple[ssl.SSLContext, bytes]:
    """A server's TLS context and what binds to it.

    Args:
        certificate: the PEM file of the certificate, and of those above it.
        key: the PEM file of its key, which only its owner may read.

    Raises:
        UsageError: they cannot be used.
    """
    for name, path in (("certificate", certificate), ("key", key)):
        if not isinstance(path, (str, os.PathLike)):
            raise UsageError(f"{name} is a {type(path).__name__}: give the path of a PEM file.")
    private_file(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
        # Latin-1, because there may be remarks between the certificates, in whatever encoding.
        first = Path(certificate).read_text("latin-1").partition("-----END CERTIFICATE-----")
        begin = first[0].index("-----BEGIN CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(first[0][begin:] + first[1])
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        why = "it is no PEM file of a certificate, or the key is none"
        if "KEY_VALUES_MISMATCH" in str(error):
            why = "the key belongs to another one"
        elif not isinstance(error, ssl.SSLError):
            why = str(error)
        both = f"{os.fspath(certificate)} cannot be used with the key in {os.fspath(key)}"
        raise UsageError(f"The certificate in {both}: {why}.") from error
    return context, certificate_hash(der)
