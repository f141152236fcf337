"""Trees that stand for the `/` of a board: what Linux and L4T show there. Python 3.6, as the code that they are for.

Paths, file names, labels and the form of each file are those of the boards: from jetson_stats, the kernel's `ina3221`
and `soctherm_oc` drivers, and what owners published. The numbers are plausible ones.
"""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

CUDA_10 = {"/usr/local/cuda/version.txt": "CUDA Version 10.2.300\n"}
TEGRASTATS = {
    "nano": "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123",
    "nano-iram": "RAM 1180/3965MB (lfb 1x2MB) SWAP 149/1024MB (cached 7MB) IRAM 0/252kB(lfb 252kB) CPU [30%@1036,33%@"
    "1036,28%@1036,26%@1036] EMC_FREQ 10%@1600 GR3D_FREQ 0%@76 NVENC 716 NVDEC 716 APE 25 PLL@57C CPU@60.5C PMIC@100C "
    "GPU@59C AO@65C thermal@59.75C POM_5V_IN 4520/4680 POM_5V_GPU 0/0 POM_5V_CPU 1078/1205",
    "tx2": "RAM 4722/7844MB (lfb 1x512kB) CPU [2%@345,off,off,off,off,off] EMC_FREQ 13%@40 GR3D_FREQ 0%@114 APE 150 "
    "MTS fg 0% bg 0% BCPU@35C MCPU@35C GPU@-256C PLL@35C Tboard@32C Tdiode@33.25C PMIC@100C thermal@35.3C VDD_IN "
    "2003/2658 VDD_CPU 320/518 VDD_GPU 400/735 VDD_SOC 400/415 VDD_WIFI 0/0 VDD_DDR 240/348",
    "agx-xavier": "RAM 2455/15692MB (lfb 2919x4MB) SWAP 0/7846MB (cached 0MB) CPU [3%@1190,0%@1190,off,off] EMC_FREQ "
    "0%@665 GR3D_FREQ 0%@318 AO@32.5C GPU@32C Tboard@33C Tdiode@34.5C AUX@32C CPU@33.5C thermal@32.9C PMIC@100C GPU "
    "0/0 CPU 216/216 SOC 864/864 CV 0/0 VDDRQ 144/144 SYS5V 1889/1889",
    "agx-orin": "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,14%@2201] EMC_FREQ 3%@3199 GR3D_FREQ "
    "12%@[1300,1305] NVDEC off VIC off APE 200 cpu@52.968C/52.968C gpu@47.625C/47.625C tj@52.968C/53C VDD_GPU_SOC "
    "5139mW/5139mW/5139mW VDD_CPU_CV 3268mW/3268mW/3268mW VIN_SYS_5V0 5500mW/5500mW/5500mW",
    "thor": "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 GR3D_FREQ "
    "@[1574,1574,1575] NVENC0_FREQ @1691 cpu@49.75C/49.75C tj@51.218C/51.218C gpu@51.218C/51.218C VDD_GPU "
    "-392mW/6330mW/6330mW VDD_CPU_SOC_MSS 3924mW/3924mW VIN_SYS_5V0 5150mW/5150mW VIN 28906mW/14453mW/28906mW",
}


class Monitor(NamedTuple):
    """An INA3221 (or INA238) and its channels: (label, volt in mV, current in mA); a label of None is no label file."""

    address: str
    layout: str
    rails: Tuple[Tuple[Optional[str], int, int], ...]


class Kind(NamedTuple):
    """A board: the parts in which boards differ."""

    model: str
    soc: str
    release: str
    memory_kib: Tuple[int, int]
    swaps: Tuple[str, ...]
    modes: str
    mode: int
    gpu: Tuple[str, int, int, int]
    cpus: str
    cpu_khz: Tuple[int, int, int]
    monitors: Tuple[Monitor, ...]
    zones: Tuple[Tuple[str, str], ...]
    cooling: Tuple[str, ...]
    files: Dict[str, str]


def _mode(number: int, name: str, gpu: Any, cores: int) -> str:
    online = "".join("CPU_ONLINE CORE_{} {}\n".format(core, int(core < cores)) for core in range(cores + 1))
    return "< POWER_MODEL ID={} NAME={} >\n{}CPU_A57 MAX_FREQ 918000\nGPU MIN_FREQ 0\nGPU MAX_FREQ {}\n\n".format(
        number, name, online, gpu
    )


def _conf(modes: List[Tuple[int, str, Any, int]], default: int) -> str:
    head = (
        "# < POWER_MODEL ID=id_num NAME=mode_name >\n\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n"
        "CORE_0 /sys/devices/system/cpu/cpu0/online\n\n< PARAM TYPE=CLOCK NAME=GPU >\n"
        "MAX_FREQ /sys/devices/gpu.0/devfreq/57000000.gpu/max_freq\n\n"
    )
    return head + "".join(_mode(*mode) for mode in modes) + "< PM_CONFIG DEFAULT={} >\n".format(default)


_ZRAM = tuple("/dev/zram{}{}partition\t507480\t{}\t5".format(n, " " * 30, 1024 * n) for n in range(4))
_SWAP_FILE = ("/swapfile                               file\t\t8388604\t\t0\t\t-2",)
_JP4_ZONES = (
    ("AO-therm", "46000"),
    ("CPU-therm", "40500"),
    ("GPU-therm", "41000"),
    ("PLL-therm", "39000"),
    ("PMIC-Die", "100000"),
    ("thermal-fan-est", "41000"),
)
_ORIN_ZONES = (
    ("cpu-thermal", "49812"),
    ("gpu-thermal", "47625"),
    ("cv0-thermal", ""),  # switched off: reading it fails
    ("soc0-thermal", "48000"),
    ("tj-thermal", "49812"),
)
_OC = {"/sys/class/hwmon/hwmon2/name": "soctherm_oc\n"}
_OC.update({"/sys/class/hwmon/hwmon2/oc{}_event_cnt".format(n): "{}\n".format(10 * n) for n in (1, 2, 3)})
_OC.update({"/sys/class/hwmon/hwmon2/oc{}_throt_en".format(n): "1\n" for n in (1, 2, 3)})

KINDS = {
    "nano": Kind(
        model="NVIDIA Jetson Nano Developer Kit",
        soc="tegra210",
        release="# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 "
        "17:05:08 UTC 2022",
        memory_kib=(4059480, 3220140),
        swaps=_ZRAM,
        modes=_conf([(0, "MAXN", -1, 4), (1, "5W", 640000000, 2)], 0),
        mode=0,
        gpu=("57000000.gpu", 76800000, 76800000, 921600000),
        cpus="0-3",
        cpu_khz=(102000, 102000, 1479000),
        monitors=(
            Monitor(
                "6-0040",
                "iio",
                (("POM_5V_IN", 5088, 433), ("POM_5V_GPU", 5080, 8), ("POM_5V_CPU", 5088, 97)),
            ),
        ),
        zones=_JP4_ZONES,
        cooling=("gpu-balanced", "cpu-balanced", "pwm-fan"),
        files=dict(CUDA_10, **{"/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.2.1": "elf"}),
    ),
    "tx2": Kind(
        model="quill",
        soc="tegra186",
        release="# R32 (release), REVISION: 7.2, GCID: 30192233, BOARD: t186ref, EABI: aarch64, DATE: Sun Apr 17 "
        "09:53:50 UTC 2022",
        memory_kib=(8032904, 6500000),
        swaps=_ZRAM,
        modes=_conf(
            [
                (0, "MAXN", -1, 6),
                (1, "MAXQ", 850000000, 4),
                (2, "MAXP_CORE_ALL", 1120000000, 6),
                (3, "MAXP_CORE_ARM", 1120000000, 4),
            ],
            3,
        ),
        mode=3,
        gpu=("17000000.gp10b", 114750000, 114750000, 1122000000),
        cpus="0,3-5",
        cpu_khz=(345600, 345600, 2035200),
        monitors=(
            Monitor(
                "0-0040", "iio", (("VDD_SYS_GPU", 19152, 12), ("VDD_SYS_SOC", 19152, 32), ("VDD_4V0_WIFI", 4792, 16))
            ),
            Monitor("0-0041", "iio", (("VDD_IN", 19128, 216), ("VDD_SYS_CPU", 19152, 20), ("VDD_SYS_DDR", 19152, 64))),
            Monitor("0-0042", "iio", (("VDD_MUX", 19160, 232), ("VDD_5V0_IO_SYS", 5000, 40))),
        ),
        zones=(("BCPU-therm", "35000"), ("GPU-therm", "-256000"), ("Tboard_tegra", "32000"), ("PMIC-Die", "100000")),
        cooling=("pwm-fan", "gpu-balanced"),
        files=dict(
            CUDA_10,
            **{
                "/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.2.1": "elf",
                "/sys/devices/bcpu-throttle-alert/thermal_trip_event": "4\n",
            },
        ),
    ),
    "xavier-nx": Kind(
        model="NVIDIA Jetson Xavier NX Developer Kit",
        soc="tegra194",
        release="# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 "
        "19:57:35 UTC 2023",
        memory_kib=(6846712, 4800000),
        swaps=_ZRAM,
        modes=_conf(
            [
                (0, "MODE_15W_2CORE", 1100000000, 2),
                (2, "MODE_15W_6CORE", 1100000000, 6),
                (5, "MODE_10W_DESKTOP", 510000000, 4),
                (8, "MODE_20W_6CORE", 1100000000, 6),
            ],
            5,
        ),
        mode=5,
        gpu=("17000000.gv11b", 114750000, 114750000, 510000000),
        cpus="0-3",
        cpu_khz=(1190400, 1190400, 1907200),
        monitors=(
            Monitor("7-0040", "hwmon", (("VDD_IN", 5000, 800), ("VDD_CPU_GPU_CV", 5000, 100), ("VDD_SOC", 5000, 200))),
        ),
        zones=(("CPU-therm", "33500"), ("GPU-therm", "32000"), ("AUX-therm", "32000"), ("PMIC-Die", "50000")),
        cooling=("pwm-fan",),
        files={
            "/usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "11.4.19"}}',
            "/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.5.2": "elf",
        },
    ),
    "agx-xavier": Kind(
        model="Jetson-AGX",
        soc="tegra194",
        release="# R35 (release), REVISION: 6.4, GCID: 43000000, BOARD: generic, EABI: aarch64, DATE: Mon Jan  5 "
        "00:00:00 UTC 2026",
        memory_kib=(31734000, 29000000),
        swaps=(),
        modes=_conf([(0, "MAXN", -1, 8), (2, "MODE_15W", 670000000, 4), (3, "MODE_30W_ALL", 900000000, 8)], 2),
        mode=0,
        gpu=("17000000.gv11b", 1377000000, 1377000000, 1377000000),
        cpus="0-7",
        cpu_khz=(2265600, 2265600, 2265600),
        monitors=(
            Monitor("1-0040", "hwmon", (("GPU", 12000, 30), ("CPU", 12000, 18), ("SOC", 12000, 72))),
            Monitor("1-0041", "hwmon", (("CV", 12000, 0), ("VDDRQ", 12000, 12), ("SYS5V", 12000, 157))),
        ),
        zones=(("CPU-therm", "33500"), ("GPU-therm", "32000"), ("Tboard_tegra", "33000"), ("PMIC-Die", "50000")),
        cooling=("pwm-fan", "cpu-throttle-alert"),
        files={
            "/usr/local/cuda-11.4/lib64/libcudart.so": "elf",
            "/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.5.2": "elf",
        },
    ),
    "orin-nano": Kind(
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        soc="tegra234",
        release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 "
        "01:49:37 UTC 2025",
        memory_kib=(7802728, 1048576),
        swaps=_SWAP_FILE + _ZRAM[:1],
        modes=_conf(
            [(0, "15W", 612000000, 6), (1, "25W", 918000000, 6), (2, "MAXN_SUPER", -1, 6), (3, "7W", 408000000, 4)], 1
        ),
        mode=1,
        gpu=("17000000.gpu", 306000000, 306000000, 918000000),
        cpus="0-5",
        cpu_khz=(729600, 729600, 1344000),
        monitors=(
            Monitor("1-0040", "hwmon", (("VDD_IN", 5000, 904), ("VDD_CPU_GPU_CV", 5000, 104), ("VDD_SOC", 5000, 272))),
        ),
        zones=_ORIN_ZONES,
        cooling=("cpu-throttle-alert", "gpu-throttle-alert", "pwm-fan", "devfreq-17000000.gpu"),
        files=dict(
            _OC,
            **{
                "/usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
                "/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "elf",
            },
        ),
    ),
    "agx-orin": Kind(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        soc="tegra234",
        release="# R35 (release), REVISION: 2.1, GCID: 32413640, BOARD: t186ref, EABI: aarch64, DATE: Tue Jan 24 "
        "23:38:33 UTC 2023",
        memory_kib=(64324000, 60000000),
        swaps=_ZRAM,
        modes=_conf([(0, "MAXN", -1, 12), (1, "MODE_15W", 420750000, 4), (3, "MODE_50W", 828750000, 12)], 2),
        mode=3,
        gpu=("17000000.ga10b", 306000000, 306000000, 816000000),
        cpus="0-11",
        cpu_khz=(729600, 729600, 1497600),
        monitors=(
            Monitor(
                "1-0040", "hwmon", (("VDD_GPU_SOC", 5000, 600), ("VDD_CPU_CV", 5000, 160), ("VIN_SYS_5V0", 5000, 800))
            ),
            Monitor("1-0041", "hwmon", (("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 120), ("NC", 0, 0))),
        ),
        zones=_ORIN_ZONES,
        cooling=("cpu-throttle-alert", "pwm-fan"),
        files=dict(
            _OC,
            **{
                "/usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "11.4.19"}}',
                "/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.5.2": "elf",
            },
        ),
    ),
    "thor": Kind(
        model="NVIDIA Jetson AGX Thor Developer Kit",
        soc="tegra264",
        release="# R38 (release), REVISION: 2.1, GCID: 42061081, BOARD: generic, EABI: aarch64, DATE: Thu Sep 25 "
        "22:47:11 UTC 2025",
        memory_kib=(128766000, 120000000),
        swaps=(),
        modes=_conf([(0, "MAXN", -1, 14), (1, "120W", -1, 14)], 1),
        mode=0,
        gpu=("gpu-gpc-0", 1575000000, 1575000000, 1575000000),
        cpus="0-13",
        cpu_khz=(2601000, 2601000, 2601000),
        monitors=(
            Monitor(
                "2-0040", "hwmon", (("VDD_GPU", 5000, 0), ("VDD_CPU_SOC_MSS", 5000, 1302), ("VIN_SYS_5V0", 5000, 1304))
            ),
            Monitor("2-0044", "ina238", (("VIN", 20000, 1400),)),
        ),
        zones=(
            ("cpu-thermal", "53700"),
            ("gpu-thermal", ""),
            ("tj-thermal", "55100"),
            ("soc012-thermal", "55100"),
            ("soc345-thermal", "53700"),
        ),
        cooling=("gpu-throttle-alert", "devfreq-gpu-gpc-0", "pwm-fan"),
        files=dict(
            _OC,
            **{
                "/usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.0.48"}}',
                "/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.13.3": "elf",
                "/sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000\n",
                "/sys/devices/platform/gpu-throttle-alert/thermal_trip_event": "7\n",
            },
        ),
    ),
}


def write(root: Any, kind: str, **files: Optional[str]) -> str:
    """Writes the tree of a board under a folder; its path. Extra `files` by path replace those of the board."""
    for path, text in dict(_files(KINDS[kind]), **files).items():
        put(root, path, text)
    return str(root)


def put(root: Any, path: str, text: Optional[str]) -> None:
    """One file of a tree; None takes it away, an empty text makes a file without anything in it."""
    real = os.path.join(str(root), path.lstrip("/"))
    if text is None:
        if os.path.exists(real):
            os.unlink(real)
        return
    os.makedirs(os.path.dirname(real), exist_ok=True)
    with open(real, "wb") as stream:
        stream.write(text.encode("utf-8"))


def pin(root: Any, kind: str) -> None:
    """Clocks as `jetson_clocks` leaves them."""
    name, _, _, most = KINDS[kind].gpu
    for part in ("cur", "min"):
        put(root, "/sys/class/devfreq/{}/{}_freq".format(name, part), "{}\n".format(most))
    for cpu in _numbers(KINDS[kind].cpus):
        for part in ("cur", "min"):
            path = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_{}_freq".format(cpu, part)
            put(root, path, "{}\n".format(KINDS[kind].cpu_khz[2]))


def _numbers(online: str) -> List[int]:
    parts = [part.split("-") for part in online.split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def _files(kind: Kind) -> Dict[str, str]:
    found = {
        "/etc/nv_tegra_release": kind.release + "\n# KERNEL_VARIANT: oot\n",
        "/etc/nvpmodel.conf": kind.modes,
        "/var/lib/nvpmodel/status": "pmode:{:04d} fmode:quiet\n".format(kind.mode),
        "/proc/device-tree/model": kind.model + "\0",
        "/proc/device-tree/compatible": "nvidia,p3449-0000+p3448-0000\0nvidia,jetson\0nvidia,{}\0".format(kind.soc),
        "/proc/meminfo": "MemTotal:       {} kB\nMemFree:          200000 kB\nMemAvailable:   {} kB\nHugePages_Total:  "
        "     0\n".format(*kind.memory_kib),
        "/proc/swaps": "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n" + "".join(line + "\n" for line in kind.swaps),
        "/proc/sys/kernel/osrelease": "4.9.253-tegra\n",
        "/sys/devices/system/cpu/online": kind.cpus + "\n",
    }
    for part, value in zip(("cur", "min", "max"), kind.gpu[1:]):
        found["/sys/class/devfreq/{}/{}_freq".format(kind.gpu[0], part)] = "{}\n".format(value)
        for cpu in _numbers(kind.cpus):
            khz = dict(zip(("cur", "min", "max"), kind.cpu_khz))[part]
            found["/sys/devices/system/cpu/cpu{}/cpufreq/scaling_{}_freq".format(cpu, part)] = "{}\n".format(khz)
    for number, monitor in enumerate(kind.monitors):
        found.update(_monitor(monitor, number))
    found.update(_thermal(kind))
    found.update(kind.files)
    return found


def _monitor(monitor: Monitor, number: int) -> Dict[str, str]:
    chip = "/sys/bus/i2c/devices/{}".format(monitor.address)
    found = {chip + "/name": {"iio": "ina3221x", "ina238": "ina238"}.get(monitor.layout, "ina3221") + "\n"}
    folder = chip + ("/iio:device{}" if monitor.layout == "iio" else "/hwmon/hwmon{}").format(number)
    for index, (label, millivolt, milliampere) in enumerate(monitor.rails):
        milliwatt = millivolt * milliampere // 1000
        if monitor.layout == "iio":
            found["{}/rail_name_{}".format(folder, index)] = "{}\n".format(label)
            found["{}/in_voltage{}_input".format(folder, index)] = "{}\n".format(millivolt)
            found["{}/in_current{}_input".format(folder, index)] = "{}\n".format(milliampere)
            found["{}/in_power{}_input".format(folder, index)] = "{}\n".format(milliwatt)
            found["{}/crit_current_limit_{}".format(folder, index)] = "32760 ma\n"
        elif monitor.layout == "ina238":
            found[folder + "/label"] = "{}\n".format(label)
            found[folder + "/in1_input"] = "{}\n".format(millivolt)
            found[folder + "/power1_input"] = "{}\n".format(milliwatt * 1000)
        else:
            found["{}/in{}_label".format(folder, index + 1)] = "{}\n".format(label)
            found["{}/in{}_input".format(folder, index + 1)] = "{}\n".format(millivolt)
            found["{}/in{}_enable".format(folder, index + 1)] = "1\n"
            found["{}/curr{}_input".format(folder, index + 1)] = "{}\n".format(milliampere)
            found["{}/curr{}_crit".format(folder, index + 1)] = "32760\n"
    if monitor.layout == "hwmon":
        found.update({folder + "/in7_label": "sum of shunt voltages\n", folder + "/in7_input": "400\n"})
        found[folder + "/curr4_input"] = "900\n"
    return found


def _thermal(kind: Kind) -> Dict[str, str]:
    found = {}
    for number, (name, temperature) in enumerate(kind.zones):
        folder = "/sys/class/thermal/thermal_zone{}".format(number)
        found[folder + "/type"] = name + "\n"
        found[folder + "/temp"] = temperature and temperature + "\n"
        trips = (("active", "35000"), ("passive", "97000"), ("critical", "102500"))
        for index, (what, celsius) in enumerate(trips):
            found["{}/trip_point_{}_type".format(folder, index)] = what + "\n"
            found["{}/trip_point_{}_temp".format(folder, index)] = celsius + "\n"
    for number, name in enumerate(kind.cooling):
        folder = "/sys/class/thermal/cooling_device{}".format(number)
        found[folder + "/type"] = name + "\n"
        found[folder + "/cur_state"] = "0\n"
        found[folder + "/max_state"] = "10\n"
    return found
