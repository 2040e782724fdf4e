from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edgecv import host
from edgecv.host import Disturbance, cpu_flags, cpu_name, cpu_quota, disturbances, same_machine

LINUX_ONLY = pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R)   Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse2 fma f16c avx2 hypervisor avx512f avx512_bf16 avx_vnni avx512_vnni amx_bf16 amx_tile amx_int8

processor\t: 1
model name\t: Intel(R) Xeon(R)   Platinum 8481C CPU @ 2.70GHz
"""
RASPBERRY_PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
CALM = Disturbance(busy_cores=0.1, load=0.3, cores=4, free_bytes=4_000_000_000)


def test_facts_come_back_from_json_as_they_went() -> None:
    facts = host.facts()
    assert json.loads(json.dumps(facts)) == facts


def test_facts_tell_the_machine_that_this_is() -> None:
    facts = host.facts()
    assert facts["arch"] == platform.machine()
    assert facts["cores_logical"] == os.cpu_count()
    assert 0 < facts["cores_usable"] <= facts["cores_logical"]
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["cpu"]


def test_facts_hold_no_host_name_user_name_or_path() -> None:
    text = json.dumps([value for value in host.facts().values() if isinstance(value, str)])
    names = {platform.node()}
    with contextlib.suppress(KeyError, OSError):  # a user without an entry has no name
        names.add(getpass.getuser())
    assert str(Path.home()) == "/" or str(Path.home()) not in text
    assert not names & set(text.replace('"', " ").replace(",", " ").split())


@LINUX_ONLY
def test_a_process_held_to_one_core_sees_one_usable_core() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from edgecv import host; print(host.facts()['cores_usable'])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < float(printed) <= 1


@pytest.mark.parametrize(
    ("cpuinfo", "flags"),
    [
        (X86, "amx_bf16 amx_int8 avx2 avx512_bf16 avx512_vnni avx512f avx_vnni f16c fma"),
        (RASPBERRY_PI_5, "dotprod fp16 neon"),
        ("Features : half thumb neon vfpv4", "neon"),
        ("Features : asimd asimddp sve i8mm bf16", "bf16 dotprod i8mm neon sve"),
        ("", ""),
    ],
)
def test_flags_are_those_that_model_speed_depends_on(cpuinfo: str, flags: str) -> None:
    assert cpu_flags(cpuinfo) == flags.split()


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (X86, "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"),
        (RASPBERRY_PI_5, "Raspberry Pi 5 Model B Rev 1.0, ARM 0x41 part 0xd0b"),
        ("CPU implementer : 0x41\nCPU part : 0xd40\n", "ARM 0x41 part 0xd40"),
        ("", None),
    ],
)
def test_a_processor_is_named_on_x86_and_on_arm(cpuinfo: str, name: str | None) -> None:
    assert cpu_name(cpuinfo) == name


def test_the_tightest_quota_on_the_way_up_holds(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota("0::/outer/inner\n", tmp_path) == 1.5


def test_the_quota_of_version_1_is_read(tmp_path: Path) -> None:
    group = tmp_path / "cpu" / "docker"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("200000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota("4:memory:/docker\n3:cpu,cpuacct:/docker\n", tmp_path) == 2.0


@pytest.mark.parametrize("cgroups", ["", "0::/\n", "3:cpu:/\n4:memory:/a\n", "0::/gone/away\n"])
def test_no_quota_is_none(tmp_path: Path, cgroups: str) -> None:
    assert cpu_quota(cgroups, tmp_path) is None


def test_a_machine_is_the_same_as_itself() -> None:
    assert same_machine(host.facts(), host.facts()) == []


def test_the_differences_that_matter_are_named() -> None:
    here = host.facts()
    other = {**here, "cpu": "Cortex-A76", "flags": ["neon"], "load_average": [9, 9, 9], "python": "3.14.0"}
    assert [line.split(":")[0] for line in same_machine(here, other)] == ["cpu", "flags"]
    assert same_machine(here, other)[1].endswith(" and neon")


def test_a_fact_that_one_side_lacks_is_a_difference() -> None:
    assert same_machine({"cpu": "A"}, {}) == ["cpu: A and unknown"]


@LINUX_ONLY
def test_the_fingerprint_stays_in_another_process() -> None:
    """Under the same affinity: a test runner that pins its workers hands it on."""
    code = "from edgecv import host; print(host.fingerprint(host.facts()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == host.fingerprint(host.facts())
    assert len(host.fingerprint(host.facts())) == 16


def test_runtime_versions_are_those_installed() -> None:
    import numpy as np

    versions = host.runtime_versions()
    assert versions["numpy"] == np.__version__
    assert versions.keys() <= {
        "numpy", "pillow", "tensorflow", "tf-keras", "ai-edge-litert", "openvino", "nncf", "onnxruntime",
        "tflite-micro", "ethos-u-vela", "litert-quantizer", "tensorflow-model-optimization",
    }  # fmt: skip


def test_versions_are_told_without_importing_a_runtime() -> None:
    code = """
import sys
from edgecv import host
host.runtime_versions(), host.facts()
print(sorted({"tensorflow", "openvino", "nncf", "numpy", "ai_edge_litert", "onnxruntime"} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_calm_machine_is_not_warned_of() -> None:
    assert disturbances(CALM) == []


@pytest.mark.parametrize(
    ("state", "warning"),
    [
        (
            Disturbance(busy_cores=1.8, load=3.2, cores=2, free_bytes=4_000_000_000),
            "other programs keep 1.8 of 2 cores busy (limit 0.5; load average 3.2): close them",
        ),
        (
            Disturbance(busy_cores=0.0, load=0.0, cores=2, free_bytes=4_000_000_000, governor="powersave"),
            "the frequency governor is powersave: sudo cpupower frequency-set --governor performance",
        ),
        (
            Disturbance(busy_cores=0.0, load=0.0, cores=2, free_bytes=250_000_000),
            "free memory is 0.25 GB (limit 1 GB): close other programs",
        ),
        (
            Disturbance(busy_cores=0.0, load=0.0, cores=2, free_bytes=4_000_000_000, battery_percent=45.0),
            "the machine runs on its battery (45 %): plug it in",
        ),
    ],
)
def test_each_disturbance_is_warned_of_with_its_figure_and_a_next_step(state: Disturbance, warning: str) -> None:
    assert disturbances(state) == [warning]


def test_a_load_that_is_over_is_not_warned_of() -> None:
    assert disturbances(Disturbance(busy_cores=0.1, load=4.0, cores=2, free_bytes=4_000_000_000)) == []


@LINUX_ONLY
def test_a_machine_with_every_core_busy_is_warned_of() -> None:
    facts = host.facts()
    if facts["cores_usable"] < facts["cores_logical"] / 2:
        pytest.skip("this process may use too few of the cores to keep them busy")
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        assert any("cores busy" in warning for warning in host.warnings())
    finally:
        for process in spin:
            process.kill()
            process.wait()
