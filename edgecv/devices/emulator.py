"""Set up an emulated processor without root: qemu, Debian's libraries and Python for it, and the runtime's wheels."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.config import cache_folder
from edgecv.errors import ConfigError, DeviceError, MissingError
from edgecv.isolate import run_child

__all__ = ["Emulator", "emulator", "install_emulator"]

# Older ones crash on LiteRT 2.2 and later; Debian 13 has it.
LEAST_QEMU, QEMU_SUITE = 10, "trixie"
SUITE, PYTHON = "bookworm", "python3.11"
MIRROR, KEYRING = "http://deb.debian.org/debian/", Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DOWNLOAD_SECONDS = 900.0
LIBRARIES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libssl3"),
    *("libuuid1", "libcrypt1", "libgomp1", f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib"),
)


@dataclass(frozen=True)
class _Processor:
    """Debian's names of a processor, qemu's program and core, and what runs models: Debian packages and wheels."""

    debian: str
    triplet: str
    qemu: str
    core: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...]


PROCESSORS = {
    # The core of a Raspberry Pi 5. LiteRT takes SME on qemu's "max", which few boards have, and qemu is slow at it.
    "aarch64": _Processor(
        "arm64", "aarch64-linux-gnu", "qemu-aarch64", "cortex-a76", LIBRARIES, ("ai-edge-litert", "numpy")
    ),
    # There are no wheels of LiteRT or numpy for it: the predecessor's, and Debian's numpy.
    "armv7l": _Processor(
        "armhf",
        "arm-linux-gnueabihf",
        "qemu-arm",
        "max",
        (*LIBRARIES, "python3-numpy", "libblas3", "liblapack3", "libgfortran5", "libatomic1"),
        ("tflite-runtime",),
    ),
}


@dataclass(frozen=True)
class Emulator:
    """Where a processor is set up: the folder holds `bin`, `sysroot` and `wheels`."""

    processor: str
    folder: Path

    @property
    def qemu(self) -> Path:
        """The program that runs the processor's programs."""
        return self.folder / "bin" / PROCESSORS[self.processor].qemu

    @property
    def core(self) -> str:
        """The core that is emulated, as qemu names it."""
        return PROCESSORS[self.processor].core

    def command(self) -> list[str]:
        """Give the command of the processor's Python, with the runtime's wheels."""
        root = self.folder / "sysroot"
        modules = f"{self.folder / 'wheels'}:{root / 'usr/lib/python3/dist-packages'}"
        # Where Debian keeps what it offers alternatives to.
        libraries = ":".join(
            str(root / "usr/lib" / PROCESSORS[self.processor].triplet / one) for one in ("blas", "lapack")
        )
        named = {"PYTHONHOME": root / "usr", "PYTHONPATH": modules, "LD_LIBRARY_PATH": libraries}
        settings = [part for name, value in named.items() for part in ("-E", f"{name}={value}")]
        program = [str(self.qemu), "-cpu", self.core, "-L", str(root), *settings]
        return [*program, str(root / "usr/bin" / PYTHON), "-s"]

    def version(self) -> str | None:
        """Ask qemu for its version; None where it is not set up."""
        if not self.qemu.is_file():
            return None
        found = re.search(r"version (\S+)", run_child([str(self.qemu), "--version"], timeout_seconds=10).stdout)
        return found[1] if found else None


def emulator(processor: str) -> Emulator:
    """Find a processor's folder: in `$EDGECV_EMULATORS`, else in `edgecv-emulators` in the user's cache folder.

    Raises:
        ConfigError: it is none that can be set up.
    """
    if processor not in PROCESSORS:
        expected = "one of " + ", ".join(PROCESSORS)
        raise ConfigError(f"{processor!r} is not emulated", expected=expected, fix="correct host in the target")
    place = os.environ.get("EDGECV_EMULATORS") or cache_folder() / "edgecv-emulators"
    return Emulator(processor, Path(place) / processor)


def install_emulator(found: Emulator) -> Iterator[str]:
    """Download and unpack all of a processor's parts; they come to their folder when all are whole.

    Raises:
        MissingError: this machine has no apt-get, dpkg-deb, or keys of Debian's.
        DeviceError: a download failed; nothing is left of it.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingError(f"there is no {program}", expected="Debian, or a system made of it", fix=_by_hand(found))
    if not KEYRING.is_file():
        raise MissingError("Debian's keys are not here", fix="sudo apt install debian-archive-keyring")
    one = PROCESSORS[found.processor]
    found.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=found.folder.parent, prefix=".part-") as name:
        part = Path(name)
        yield f"qemu {LEAST_QEMU} or newer, from Debian {QEMU_SUITE}"
        _unpack(part / "qemu", QEMU_SUITE, "amd64" if os.uname().machine == "x86_64" else "arm64", ("qemu-user",))
        (part / "made/bin").mkdir(parents=True)
        shutil.move(part / "qemu/root/usr/bin" / one.qemu, part / "made/bin")
        yield f"{len(one.packages)} packages of Debian {SUITE} for {one.debian}"
        _unpack(part / "libraries", SUITE, one.debian, one.packages)
        shutil.move(part / "libraries/root", part / "made/sysroot")
        yield f"wheels of {', '.join(one.wheels)}"
        _wheels(part / "made/wheels", found.processor, one.wheels)
        shutil.rmtree(found.folder, ignore_errors=True)
        (part / "made").rename(found.folder)


def _unpack(place: Path, suite: str, debian: str, packages: Sequence[str]) -> None:
    """Download packages of another release or processor with an apt of its own, and unpack them into `root`."""
    for folder in ("lists/partial", "archives/partial", "root"):
        (place / folder).mkdir(parents=True)
    (place / "status").touch()
    (place / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    options = {
        "Dir::State": place,
        "Dir::State::status": place / "status",
        "Dir::Cache": place,
        "Dir::Etc::SourceList": place / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "APT::Sandbox::User": "",
    }
    apt = ["env", "-C", str(place), "apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    _done([*apt, "update"])
    _done([*apt, "download", *packages])
    for path in sorted(place.glob("*.deb")):
        _done(["dpkg-deb", "-x", str(path), str(place / "root")])


def _wheels(place: Path, processor: str, wheels: Sequence[str]) -> None:
    """Download wheels for the processor: of this machine's own versions, where it has them, so that files agree."""
    named = [f"{wheel}=={version}" if (version := _version(wheel)) else wheel for wheel in wheels]
    platforms = (f"--platform=manylinux_2_{minor}_{processor}" for minor in range(17, 37))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(place)]
    plain = [] if len(named) > 1 else ["--no-deps"]  # the predecessor's dependency, numpy, is Debian's
    _done([*pip, *platforms, "--python-version=3.11", "--implementation=cp", "--only-binary=:all:", *plain, *named])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mirror() -> str:
    """Take the mirror that this machine's own apt uses, if it is Debian's."""
    said = run_child(["apt-get", "indextargets", "--format", "$(REPO_URI)"], timeout_seconds=60, last_bytes=100_000)
    return next((line for line in said.stdout.split() if line.endswith("/debian/")), MIRROR)


def _done(argv: list[str]) -> None:
    child = run_child(argv, timeout_seconds=DOWNLOAD_SECONDS)
    if child.problem:
        got = (child.stderr or child.stdout).strip()[-500:]
        fix = "see that the Debian and Python package indexes can be reached, and give the same command again"
        raise DeviceError(f"{Path(argv[0]).name} {child.problem}", got=got, fix=fix)


def _by_hand(found: Emulator) -> str:
    return f"copy {found.folder} from a machine with Debian, where `edgecv setup-device` has made it"
