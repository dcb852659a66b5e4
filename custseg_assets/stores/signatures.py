"""Signatures of releases: who writes a release signs its manifest, and a service can demand that.

A manifest lists every file of its release with digest and size, so its signature covers all of them. What the signature
does not say is which release is to be served: any that was ever signed may be pointed to, as a rollback does. Which
files a release has is in ``releases``. The service imports this module, and ``cryptography`` only where it is used.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

from custseg_assets.errors import BadInputError
from custseg_assets.stores.files import replace_text
from custseg_assets.stores.releases import MANIFEST, MAX_SIGNATURE_BYTES, SIGNATURE, DamagedReleaseError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# So that a signature of anything else by the same key is not one of a manifest.
_PURPOSE = b"custseg release manifest\n"


def make_key_pair(path: Path) -> Path:
    """Make a pair of Ed25519 keys: the private one in a file that only its owner reads, the public one beside it.

    Args:
        path: of the private key.

    Returns:
        the path of the public key, ``<path>.pub``.

    Raises:
        BadInputError: one of the files is there already, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, public_path = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for one, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
        try:
            # Never over another key, which nobody could get back.
            descriptor = os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise BadInputError(f"{one}: {error.strerror}", "the name of a new file", "Name another.") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return public_path


def sign_release(root: Path, release_id: str, key: Path) -> None:
    """Sign a release; signing it again with the same key changes nothing.

    Args:
        root: folder of the releases.
        release_id: of a release in it.
        key: file of the private key.

    Raises:
        BadInputError: the file has no private key.
    """
    manifest = (root / release_id / MANIFEST).read_bytes()
    signature = _read_private_key(key).sign(_PURPOSE + manifest)
    replace_text(root / release_id / SIGNATURE, base64.b64encode(signature).decode() + "\n", is_durable=True)


class RequiredSignature:
    """Checks that manifests are signed by whoever has the private key.

    Args:
        key: file of the public key.

    Raises:
        BadInputError: the file has no public key.
    """

    def __init__(self, key: Path) -> None:
        self._key, self._path = _read_public_key(key), key

    def __call__(self, directory: Path, manifest: bytes) -> None:
        """Check the signature in a release's directory.

        Args:
            directory: of the release.
            manifest: the bytes of its manifest, as they are going to be read.

        Raises:
            DamagedReleaseError: there is no signature, or it is not this manifest's by this key.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            with (directory / SIGNATURE).open("rb") as file:
                content = file.read(MAX_SIGNATURE_BYTES)
        except OSError:
            raise DamagedReleaseError(
                f"release {directory.name} is not signed; sign it where it is written, by CUSTSEG_SIGNING_KEY"
            ) from None
        try:
            self._key.verify(base64.b64decode(content.strip(), validate=True), _PURPOSE + manifest)
        except (InvalidSignature, ValueError):
            raise DamagedReleaseError(
                f"release {directory.name}: its signature is not of this manifest by the key in {self._path}"
            ) from None


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(path, "private", error) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "private", None)
    return key


def _read_public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _no_key(path, "public", error) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "public", None)
    return key


def _no_key(path: Path, kind: str, error: Exception | None) -> BadInputError:
    reason = error.strerror if isinstance(error, OSError) else f"not the {kind} key of a pair"
    return BadInputError(f"{path}: {reason}", f"the {kind} key that `custseg keygen` writes", "Name that file.")
