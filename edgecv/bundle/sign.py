"""Sign a bundle with a key of an elliptic curve, and check such a signature, offline."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecv.bundle.verify_bundle import SIGNATURE, problems
from edgecv.errors import MissingError, UsageError
from edgecv.extras import install_command

__all__ = ["check_bundle", "check_key", "sign"]

SIGNATURE_BYTES = 4_000_000


def sign(folder: Path, key: Path) -> None:
    """Sign every file of a bundle by a private key, and write `model.sig` (a sigstore bundle) into it.

    `key`: PEM, of P-256, P-384 or P-521, without a password. The signature is another one each time: ECDSA takes a
    random number.

    Raises:
        MissingError: model-signing is not installed.
        UsageError: the key can't be used.
    """
    with _refusing(key):
        config = _signer(key).set_hashing_config(_all_but_the_signature())
        config.sign(str(folder), str(folder / SIGNATURE))


def check_key(key: Path) -> None:
    """Refuse a key that `sign` can't use.

    Raises:
        MissingError: model-signing is not installed.
        UsageError: the key can't be used.
    """
    with _refusing(key):
        _signer(key)


def check_bundle(folder: Path, *, key: Path | None = None) -> list[str]:
    """List what is wrong with a bundle; with `key`, a public key (PEM), its signature too. Opens no model.

    Raises:
        MissingError: a key is given, and model-signing is not installed.
        UsageError: the key can't be read.
    """
    found = problems(str(folder))
    if found or key is None:
        return found
    verifying = _library().verifying
    if not (folder / SIGNATURE).is_file():
        return [f"{SIGNATURE}: missing: the bundle is not signed"]
    if (folder / SIGNATURE).stat().st_size > SIGNATURE_BYTES:
        return [f"{SIGNATURE}: more than {SIGNATURE_BYTES} bytes"]
    config = verifying.Config().set_hashing_config(_all_but_the_signature())
    try:
        config.use_elliptic_key_verifier(public_key=str(key))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"can't read {key}", got=str(error), expected="a public key, PEM") from error
    try:
        with _silent():
            config.verify(str(folder), str(folder / SIGNATURE))
    # A damaged signature can make its readers raise nearly anything.
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        return [f"{SIGNATURE}: not the signature of these files by this key: {ascii(reason)[1:-1][:200]}"]
    return []


def _all_but_the_signature() -> Any:
    # Its paths start at the folder that is hashed.
    return _library().hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _signer(key: Path) -> Any:
    return _library().signing.Config().use_elliptic_key_signer(private_key=str(key))


@contextlib.contextmanager
def _refusing(key: Path) -> Iterator[None]:
    """Say of the key what its readers raise while the block runs."""
    try:
        with _silent():
            yield
    except (OSError, ValueError, TypeError, AttributeError) as error:
        new = key if not os.path.lexists(key) else "NEW.pem"  # openssl would write over a key that is there
        raise UsageError(
            f"can't sign with {key}",
            got="a key of another kind" if isinstance(error, AttributeError) else str(error),
            expected="a private key of P-256, P-384 or P-521, PEM, without a password",
            fix=f"openssl ecparam -name prime256v1 -genkey -noout -out {new}",
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the library's prints away from stdout, which is for results, and its deprecations from people."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import model_signing
    except ImportError as error:
        raise MissingError(
            "bundles are signed by model-signing", got=str(error), fix=install_command("sign")
        ) from error
    return model_signing
