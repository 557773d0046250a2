"""OpenZFS for user-mode Linux: Debian's sources, built against Debian's kernel once a machine (some 200 s).

No kernel is built: what the shipped one exports is read from its own symbol table, and the headers come from the
package of its source.
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cache, debian
from tests.lab.errors import LabError

KERNEL = Path("/usr/bin/linux.uml")
CONFIG = Path("/usr/share/doc/user-mode-linux/config.gz")
TOOLS = {"make": "make", "gcc": "gcc libc6-dev", "flex": "flex", "bison": "bison", "bc": "bc", "awk": "mawk"}
HEADER = Path("/usr/include/libelf.h")
# Parts of the kernel's source that no module of another project needs.
UNWANTED = (
    *("*/drivers/*.[chS]", "*/sound/*.[ch]", "*/Documentation/*.rst", "*/arch/[abcilmnoprs]*/*.[chS]"),
    *("*.dts*", "*/tools/testing/*"),
)
# This architecture has no kernel_fpu_begin(), so no vector instructions; its C files are compiled with
# -Dsetjmp=kernel_setjmp, which assembly does not see; and the AES of assembly needs the former.
EDITS = (
    (
        "include/os/linux/kernel/linux/simd.h",
        r"s/^#if defined(__x86)$/#if defined(__x86) \&\& !defined(CONFIG_UML)/",
    ),
    ("zfs_config.h", r"/^#define HAVE_\(AES\|AVX\|AVX2\|AVX512.*\|MOVBE\|PCLMULQDQ\|SSE.*\|SSSE3\|XSAVE.*\) 1/d"),
    ("module/lua/setjmp/setjmp_x86_64.S", r"s/\b\(ENTRY\|SET_SIZE\)(\(setjmp\|longjmp\))/\1(kernel_\2)/"),
    (
        "module/icp/algs/aes/aes_impl.c",
        r"s/^#if defined(__x86_64)$/#if defined(__x86_64) \&\& !defined(CONFIG_UML)/",
    ),
)
FLAGS = "-g0 -O1"
ENVIRONMENT = {**debian.ENVIRONMENT, "KBUILD_MODPOST_WARN": "1", "ARCH": "um", "SUBARCH": "x86"}
VERSION = 1


def missing() -> str:
    """What keeps this machine from building them, with the remedy; empty when nothing does."""
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f"{tool} is missing: apt-get install {package}"
    return "" if HEADER.exists() else "libelf.h is missing: apt-get install libelf-dev"


def archive(release: str) -> Path:
    """A tar with the modules (``zfs.ko`` …) for the kernel ``release``, built when the cache has none."""
    key = [release, UNWANTED, EDITS, FLAGS, VERSION]
    return cache.made_once("zfs-modules", key, lambda work, result: _make(release, work, result))


def unpack(directory: Path, release: str) -> None:
    """Into ``directory/RELEASE/extra``, where depmod(8) finds them."""
    place = directory / release / "extra"
    place.mkdir()
    with tarfile.open(archive(release)) as tar:
        tar.extractall(place, filter="data")


def _make(release: str, work: Path, result: Path) -> None:
    _fetch(work, f"linux-source-6.1={release}-1", "zfs-dkms")
    kernel, zfs = _kernel_tree(work), next(work.glob("zfs-dkms/usr/src/zfs-*"))
    (kernel / "Module.symvers").write_text("".join(_symbols(KERNEL.read_bytes())))
    places = [f"--with-linux={kernel}", f"--with-linux-obj={kernel}"]
    _run(zfs, "./configure", "--with-config=kernel", *places)
    for file, edit in EDITS:
        _run(zfs, "sed", "-i", edit, file)
    said = _run(zfs, "make", "-s", f"-j{os.cpu_count()}", f"KCFLAGS={FLAGS}")
    if "undefined!" in said:
        raise LabError(f"ZFS wants what the kernel does not export: {said[-2000:]}")
    modules = sorted(zfs.glob("module/*/*.ko"))
    for module in modules:
        _run(zfs, "strip", "--strip-debug", module)
    with tarfile.open(result, "w") as tar:
        for module in modules:
            tar.add(module, module.name)


def _fetch(work: Path, *packages: str) -> None:
    """Unpack Debian packages into directories of their names. ZFS is in contrib, which apt's sources may lack."""
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    (work / "sources.list").write_text("\n".join(debian.mirrors("main contrib")) + "\n")
    settings = (
        f"Dir::Etc::SourceList={work}/sources.list",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={lists}",
        f"Dir::Cache={work}",
        "APT::Sandbox::User=root",
    )
    options = [f"-o{setting}" for setting in settings]
    _run(work, "apt-get", "-qq", *options, "update")
    _run(work, "apt-get", "-qq", *options, "download", *packages)
    for package in packages:
        name = package.partition("=")[0]
        deb = next(work.glob(f"{name}_*.deb"))
        _run(work, "dpkg-deb", "-x", deb, work / name)
        deb.unlink()


def _kernel_tree(work: Path) -> Path:
    """The kernel's source, ready for building modules."""
    packed = next(work.glob("linux-source-*/usr/src/*.tar.xz"))
    _run(work, "tar", "-xf", packed, *(f"--exclude={pattern}" for pattern in UNWANTED))
    tree = work / packed.name.removesuffix(".tar.xz")
    (tree / ".config").write_bytes(gzip.decompress(CONFIG.read_bytes()))
    _run(tree, "make", "-s", "olddefconfig")
    _run(tree, "make", "-s", f"-j{os.cpu_count()}", "modules_prepare")
    return tree


def _symbols(elf: bytes) -> Iterator[str]:
    """The lines of a Module.symvers: what the 64-bit kernel ``elf`` exports, without versions (elf(5)).

    An entry of ``__ksymtab`` is three pointers: value, name, namespace (include/linux/export.h, where there are no
    relative references).
    """
    table, count, names = struct.unpack_from("<Q", elf, 0x28)[0], *struct.unpack_from("<HH", elf, 0x3C)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + 64 * number) for number in range(count)]

    def text(offset: int) -> str:
        return elf[offset : elf.index(b"\0", offset)].decode()

    def at(address: int) -> str:
        for _, kind, _, start, offset, size, *_ in sections:
            if address and kind != 8 and start <= address < start + size:  # SHT_NOBITS has no bytes
                return text(offset + address - start)
        return ""

    named = {text(sections[names][4] + section[0]): section for section in sections}
    for name, kind in (("__ksymtab", "EXPORT_SYMBOL"), ("__ksymtab_gpl", "EXPORT_SYMBOL_GPL")):
        if name in named:
            start, size = named[name][4:6]
            for _, symbol, space in struct.iter_unpack("<QQQ", elf[start : start + size]):
                yield f"0x00000000\t{at(symbol)}\tvmlinux\t{kind}\t{at(space)}\n"


def _run(directory: Path, *argv: str | Path) -> str:
    """What a program said in ``directory``. Raises LabError when it fails."""
    result = subprocess.run(
        argv,
        cwd=directory,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        raise LabError(f"{' '.join(map(str, argv))} ended with {result.returncode}: {result.stdout[-2000:]}")
    return result.stdout
