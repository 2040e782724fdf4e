"""What ssh says when it does not reach a host, and what to do then."""

from __future__ import annotations

import shlex
import tempfile

from edgecv.errors import ReachError
from edgecv.isolate import Child, run_child

__all__ = ["LOST", "refusal", "resolved", "uncopied"]

LOST = 255  # ssh's exit code for its own failures; of a command it becomes one less
ANSWER_SECONDS, ANSWER_BYTES = 10, 100_000
# Words of ssh, what they mean, and what to do.
KNOWN = (
    ("Permission denied", "{host} does not let this user in", "ssh-copy-id {host}"),
    (
        "Could not resolve hostname",
        "there is no host {host}",
        "correct host in the target, or add {host} to ~/.ssh/config",
    ),
    ("Connection refused", "{host} runs no ssh server there", "start sshd on it, or correct the port in ~/.ssh/config"),
    (
        "Unable to negotiate",
        "{host} offers only what this ssh refuses",
        "allow what it offers in its entry of ~/.ssh/config (HostKeyAlgorithms, KexAlgorithms)",
    ),
    ("No route to host", "{host} is not on the network", "switch it on, then give the same command again"),
    *(
        (words, "the path of ssh's socket is too long here", "set TMPDIR to a folder with a shorter path")
        for words in ("ControlPath too long", "too long for Unix domain socket")
    ),
    ("invalid characters", "{host} is not a host to ssh", "correct host in the target"),
    *(
        (words, "{host} has no scp, which this older scp asks for there", "install openssh-client there")
        for words in ("scp: not found", "scp: command not found")
    ),
    ("usage: ssh", "this ssh does not take what it is given", "update openssh-client"),
    ("bad configuration options", "ssh can't read its config", "correct ~/.ssh/config"),
)
NO_SFTP = "subsystem request failed"
UNSEEN = "UNKNOWN port 65535"  # what ssh names the far end of a jump host or a command that gets there


def refusal(name: str, host: str, stderr: str) -> ReachError:
    """Turn what ssh or scp wrote into an error, `passing` where the same may work in a moment."""
    text = stderr.strip()
    last = text.splitlines()[-1][:300] if text else "the connection closed"
    if "IDENTIFICATION HAS CHANGED" in text or "Host key verification failed" in text:
        return _unknown(name, host, last, changed="IDENTIFICATION HAS CHANGED" in text)
    if UNSEEN in text and _behind(host):
        fix = f"type `ssh {shlex.quote(host)} true`, which shows why"
        return ReachError(f"{name}: the jump host of {host} is not known, or refuses", got=last, fix=fix)
    for words, what, fix in KNOWN:
        if words in text:
            return ReachError(f"{name}: {what.format(host=host)}", got=last, fix=fix.format(host=host))
    fix = "look at its network and power; the same command goes on from here"
    return ReachError(f"{name}: the connection to {host} was lost", got=last, fix=fix, passing=True)


def uncopied(name: str, host: str, asked: Child, *, by_sftp: bool) -> ReachError | None:
    """Tell what keeps scp from a host that ssh reaches, if anything, by its sftp-server that was `asked` nothing.

    `by_sftp`: this scp needs one; it does not before OpenSSH 9.
    """
    if said := asked.stdout.strip():
        what = f"{name}: the shell of {host} prints where it is not interactive, which scp can't read"
        fix = "move what prints in ~/.bashrc there below its check for an interactive shell"
        return ReachError(what, got=said.splitlines()[0][:300], fix=fix)
    if by_sftp and (NO_SFTP in asked.stderr or 0 < asked.returncode < LOST):
        what = f"{name}: {host} runs no sftp-server, by which scp copies"
        fix = "install openssh-sftp-server there, and see that its ssh server is told where it is (Subsystem sftp)"
        return ReachError(what, got=asked.stderr.strip()[-300:] or asked.problem or "", fix=fix)
    return None


def resolved(host: str) -> tuple[str, str]:
    """Give a host's address and port by ssh's own config, without a connection; as it is spelled without an ssh."""
    values = _config(host)
    return values.get("hostname", host), values.get("port", "22")


def _config(host: str) -> dict[str, str]:
    """Give what ssh's own config holds for a host; nothing without an ssh."""
    try:
        said = _said(["ssh", "-G", "--", host])
    except FileNotFoundError:
        said = ""
    return dict(line.split(maxsplit=1) for line in said.splitlines() if " " in line)


def _behind(host: str) -> bool:
    """Tell whether ssh's own config reaches a host by another one, or by a command."""
    values = _config(host)
    return any(values.get(key, "none") != "none" for key in ("proxyjump", "proxycommand"))


def _unknown(name: str, host: str, last: str, *, changed: bool) -> ReachError:
    """Refuse a key, show it where it can be asked for, and say what to type for one that is right."""
    address, port = resolved(host)
    known_as = address if port == "22" else f"[{address}]:{port}"
    behind = _behind(host)
    got = last if behind else _fingerprints(address, port)
    if changed:
        what, fix = "is not the one that is known", f"find out why; if it was set up anew: ssh-keygen -R {known_as}"
        return ReachError(f"{name}: the key of {host} {what}", got=got, fix=fix)
    add = f"if that is the key of {known_as}: ssh-keyscan -p {port} {shlex.quote(address)} >> ~/.ssh/known_hosts"
    ask = f"see its key, and add it if it is right: ssh -o StrictHostKeyChecking=ask {shlex.quote(host)} true"
    return ReachError(f"{name}: {host} is not among the known hosts", got=got, fix=ask if behind else add)


def _fingerprints(address: str, port: str) -> str:
    """Ask the host for its keys, and give their fingerprints."""
    with tempfile.NamedTemporaryFile("w") as keys:
        keys.write(_said(["ssh-keyscan", "-T", "5", "-p", port, "--", address]))
        keys.flush()
        found = _said(["ssh-keygen", "-lf", keys.name]).splitlines()
    return "; ".join(" ".join(line.split()[i] for i in (1, -1)) for line in found if len(line.split()) > 2) or "no key"


def _said(argv: list[str]) -> str:
    return run_child(argv, timeout_seconds=ANSWER_SECONDS, last_bytes=ANSWER_BYTES).stdout
