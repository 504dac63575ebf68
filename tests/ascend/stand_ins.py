"""Stand-ins for CANN's libraries, so that MindSpore's Ascend back end loads on a machine that has none.

MindSpore's wheel holds the whole Ascend back end, but the libraries of it ask for those of CANN, Huawei's driver and
toolkit, and do not load without them. In a dry run (MS_SIMULATION_LEVEL=1) MindSpore calls hardly any of their
functions: what would go to the device it has replaced itself. So one library with a function for every name that
MindSpore wants is enough. The names are read from the installed MindSpore; each function returns 0, CANN's success.

These stand-ins are for tests alone. Nothing of them computes, and no script of the project knows of them.
"""
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

OLDEST = (2, 10)  # MindSpore with which they were tried
TOOLS = {"gcc": "gcc", "nm": "binutils", "readelf": "binutils"}
# The libraries of MindSpore, in its folder lib, that ask for CANN's.
BACK_END = ("plugin/libmindspore_ascend.so.2", "plugin/libmindspore_ops_ascend.so", "plugin/ascend/libd_collective.so",
            "plugin/ascend/libhccl_plugin.so", "plugin/ascend/liblowlatency_collective.so",
            "plugin/ascend/libmindspore_ascend_res_manager.so", "plugin/ascend/libmindspore_graph_ir.so",
            "plugin/ascend/ms_kernels_symmetric_memory/shmem/shmem/lib/libshmem.so",
            "plugin/ascend/ms_kernels_internal/asdops/lib/liblcal_ms.so")
# What they ask for only when it is needed, so that no list of theirs has it: the driver, and the operators.
ASKED_FOR_LATER = ("libascend_hal.so", "libopapi.so")
# Functions in C, by the prefixes that CANN has for its own.
IN_C = r"(?:acl|rt[A-Z]|hal[A-Z]|Hccl|Hcom|Msprof|mstx)[A-Za-z0-9]+"
# Classes in C++, as the linker writes their names: those of namespace ge, of CANN's graph engine, and of Lcal_ms.
IN_CPP = r"_ZNK?(?:2ge|7Lcal_ms)\w+"
# What is called while the back end loads and compiles, beside what registers operators and may do nothing.
BEHAVIOUR = {
    # std::map &StatusFactory::Instance(): an empty std::map, whose header is its own leftmost and rightmost.
    "_ZN2ge13StatusFactory8InstanceEv": "static void *map[6]; if (!map[3]) map[3] = map[4] = map + 1; return map;",
    # Operator OperatorFactory::CreateOperator(const char *, const char *): an empty one, in memory of the caller's.
    "_ZN2ge15OperatorFactory14CreateOperatorEPKcS2_": "memset(first, 0, 24); return first;",
    # The fusion of operators (jit level O1) asks which Ascend it is for, and which CANN.
    "aclrtGetSocName": 'return "Ascend910B2";',
    "aclsysGetCANNVersion": 'strcpy(second, "9.0.0"); strcpy(second + 128, "9"); strcpy(second + 192, "0"); '
                            'strcpy(second + 256, "0"); return 0;',  # in whole, major, minor, release
}
NOTHING = r"_ZNK?2ge\w*(?:Register|8Operator7GetAttr)\w*"
# MindSpore's own replacement of aclrtProcessReport returns at once, and the two threads that ask it for ever would
# take two cores. Ours, which is loaded before it, lets them sleep for a while.
PATIENT = "_ZN9mindspore6device6ascend27SimuFuncIaclrtProcessReportIiEET_i"


def why_not() -> str:
    """Return what is missing here for a dry run with stand-ins, or an empty text."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"a dry run for Ascend takes Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    version = importlib.metadata.version("mindspore")
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        return f"the stand-ins for CANN are made for MindSpore {OLDEST[0]}.{OLDEST[1]}, and this is {version}"
    missing = [f"{tool} (package {package})" for tool, package in TOOLS.items() if not shutil.which(tool)]
    return f"making the stand-ins for CANN takes {', '.join(missing)}" if missing else ""


def build(folder: Path) -> None:
    """Make the stand-ins in ``folder``, where MindSpore finds CANN as the folder ``cann``."""
    library = folder / "cann" / "lib64" / "libascendcl.so"  # MindSpore knows CANN by these two folders
    library.parent.mkdir(parents=True)
    (folder / "stand_ins.c").write_text(_source(), encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "stand_ins.c"], check=True)
    for name in {*_wanted_libraries(), *ASKED_FOR_LATER} - {library.name}:
        (library.parent / name).symlink_to(library.name)
    version = folder / "python" / "hccl" / "sys_version.py"  # a distributed run asks for this package
    version.parent.mkdir(parents=True)
    (version.parent / "__init__.py").touch()
    version.write_text('__version__ = __sys_version__ = "9.0"\n', encoding="utf-8")


def environment(folder: Path) -> dict:
    """Return the variables that make MindSpore find the stand-ins in ``folder``, and dry runs of what it does."""
    cann = folder / "cann"
    return {"LD_LIBRARY_PATH": str(cann / "lib64"), "LD_PRELOAD": str(cann / "lib64" / "libascendcl.so"),
            "ASCEND_HOME_PATH": str(cann), "ASCEND_OPP_PATH": str(cann / "opp"), "PYTHONPATH": str(folder / "python"),
            "MS_SIMULATION_LEVEL": "1"}


def _libraries() -> Path:
    return Path(importlib.util.find_spec("mindspore").submodule_search_locations[0]) / "lib"


def _source() -> str:
    """Return the text of the library in C."""
    functions = [f"void *{name}(void *first, char *second) {{ {_body(name)} }}" for name in sorted(_wanted_functions())]
    return "\n".join(["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>", "#include <unistd.h>",
                      f"int {PATIENT}(int timeout) {{ usleep(20000); return 0; }}", *functions, ""])


def _body(name: str) -> str:
    if name in BEHAVIOUR:
        return BEHAVIOUR[name]
    if re.fullmatch(IN_C, name) or re.fullmatch(NOTHING, name):
        return "return 0;"
    return f'fputs("stand-in for CANN: {name} does nothing yet\\n", stderr); abort();'  # rather than nonsense


def _wanted_functions() -> set:
    """Return the names of CANN's functions that MindSpore links to or looks up at run time."""
    libraries = [_libraries() / name for name in BACK_END]
    linked = subprocess.run(["nm", "-D", "--undefined-only", *libraries], stdout=subprocess.PIPE, text=True, check=True)
    names = set(re.findall(rf" U ({IN_C}|{IN_CPP})$", linked.stdout, re.M))
    own = subprocess.run(["nm", "-D", "--defined-only", *libraries], stdout=subprocess.PIPE, text=True, check=True)
    names -= set(re.findall(r" (\w+)$", own.stdout, re.M))
    for library in libraries:  # a name that is looked up stands there as a text of its own
        names |= {name.decode() for name in re.findall(rf"(?<=\0){IN_C}(?=\0)".encode(), library.read_bytes())}
    # An operator of aclnn has two functions, and MindSpore puts the name of the first together from the second's.
    return names | {f"{name}GetWorkspaceSize" for name in names if name.startswith("aclnn")}


def _wanted_libraries() -> set:
    """Return the file names of the libraries that MindSpore's ask for and that are nowhere here."""
    listed = subprocess.run(["readelf", "-d", *(_libraries() / name for name in BACK_END)], stdout=subprocess.PIPE,
                            text=True, check=True).stdout
    there = {path.name for path in _libraries().rglob("*.so*")}
    return {name for name in re.findall(r"\(NEEDED\).*\[(.+)\]", listed)
            if name not in there and not re.match(r"lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|gomp|z)\.so|ld-linux", name)}
