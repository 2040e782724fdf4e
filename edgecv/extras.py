"""What to type to get the packages that a part of edgecv needs."""

from __future__ import annotations

import importlib.metadata

__all__ = ["install_command"]


def install_command(*extras: str) -> str:
    """Return the command that installs the packages of extras, with the versions that this edgecv declares.

    It names the packages, so it works wherever edgecv itself was installed from.

    >>> install_command("litert")
    'python -m pip install "ai-edge-litert>=2.3"'
    """
    found = []
    for requirement in importlib.metadata.requires("edgecv") or []:
        package, _, condition = requirement.partition(";")
        if any(f"'{extra}'" in condition or f'"{extra}"' in condition for extra in extras):
            found.append(f'"{package.strip()}"')
    return "python -m pip install " + " ".join(found)
