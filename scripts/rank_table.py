"""Make, merge and check the rank tables of distributed training on Ascend.

    python scripts/rank_table.py make TABLE SERVER_ID 0=192.168.100.101 1=192.168.101.101 ...
    python scripts/rank_table.py make TABLE SERVER_ID --hccn_conf /etc/hccn.conf
    python scripts/rank_table.py merge TABLE PART1 PART2 ...
    python scripts/rank_table.py check TABLE
    python scripts/rank_table.py ranks TABLE [--server_id SERVER_ID]

SERVER_ID is the address of a server; each DEVICE=ADDRESS is the number of a device and the address of its
network port, which /etc/hccn.conf lists. Make a table on each server, and merge the tables on one: ranks are
numbered in the order given. `ranks` is for the launchers: `RANK DEVICE WORLD_SIZE` for each device here.
"""
import argparse
import json
import re
import socket
import sys
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.common.errors import UserError, printable
from src.common.files import read_text, write_text
from src.common.script import status_of
from src.distributed.rank_table import Device, RankTable, Server, checked, read
from src.settings.parsing import Parser
from src.settings.types import shown

_SHOWN_SERVERS = 8


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {}
    for name, run in (("make", _make), ("merge", _merge), ("check", _check), ("ranks", _ranks)):
        parsers[name] = commands.add_parser(name)
        parsers[name].set_defaults(run=run)
        parsers[name].add_argument("TABLE")
    parsers["make"].add_argument("SERVER_ID")
    parsers["make"].add_argument("devices", nargs="*", metavar="DEVICE=ADDRESS")
    parsers["make"].add_argument("--hccn_conf")
    parsers["merge"].add_argument("parts", nargs="+", metavar="PART")
    parsers["ranks"].add_argument("--server_id")
    arguments = parser.parse_args()
    arguments.run(arguments)


def make(server_id: str, devices: Iterable[Tuple[int, str]]) -> RankTable:
    """Return the table of one server; ``devices`` are pairs of device id and address, in the order of the ranks."""
    ranked = tuple(Device(device_id, device_ip, rank) for rank, (device_id, device_ip) in enumerate(devices))
    return checked([Server(server_id, ranked)], "make")


def merge(tables: Sequence[RankTable]) -> RankTable:
    """Return one table of several, with the ranks numbered in the order of the tables."""
    first_rank, servers = 0, []
    for table in tables:
        for server in table.servers:
            devices = tuple(device._replace(rank_id=first_rank + device.rank_id) for device in server.devices)
            servers.append(Server(server.server_id, devices))
        first_rank += table.size
    return checked(servers, "merge")


def server_of(table: RankTable, server_id: Optional[str] = None) -> Server:
    """Return this machine's server: the one named, or the only one, or the one with an address of this machine.

    Raises:
        UserError: the table has no such server, or more than one.
    """
    names = ", ".join(server.server_id for server in table.servers[:_SHOWN_SERVERS])
    names += ", ..." * (len(table.servers) > _SHOWN_SERVERS)
    if server_id:
        matches = [server for server in table.servers if server.server_id == server_id]
        problem = f"got {shown(server_id)}, but the rank table has {names}; set it to one of these"
    elif len(table.servers) == 1:
        return table.servers[0]
    else:
        matches = [server for server in table.servers if _is_this_machine(server.server_id)]
        problem = (f"not set, and this machine has the address of {len(matches)} of the rank table's servers {names}; "
                   "set it to this machine's")
    if len(matches) != 1:
        raise UserError(f"SERVER_ID: {problem}")
    return matches[0]


def _is_this_machine(server_id: str) -> bool:
    try:
        family, kind, _, _, address = socket.getaddrinfo(server_id, 0, type=socket.SOCK_DGRAM,
                                                         flags=socket.AI_NUMERICHOST)[0]
    except (OSError, ValueError):  # not an address
        return server_id in (socket.gethostname(), socket.getfqdn())
    with socket.socket(family, kind) as probe:
        try:
            probe.bind(address)  # only an address of this machine can be bound
        except OSError:
            return False
    return True


def _make(arguments: argparse.Namespace) -> None:
    if bool(arguments.devices) == bool(arguments.hccn_conf):
        raise UserError("make: takes either devices as DEVICE=ADDRESS, such as 0=192.168.100.101, or --hccn_conf FILE")
    devices = _configured(arguments.hccn_conf) if arguments.hccn_conf else [_pair(text) for text in arguments.devices]
    _write(make(arguments.SERVER_ID, devices), arguments.TABLE)


def _merge(arguments: argparse.Namespace) -> None:
    _write(merge([read(part, "merge") for part in arguments.parts]), arguments.TABLE)


def _check(arguments: argparse.Namespace) -> None:
    _show(read(arguments.TABLE, "check"))


def _ranks(arguments: argparse.Namespace) -> None:
    table = read(arguments.TABLE, "RANK_TABLE_FILE")
    for device in server_of(table, arguments.server_id).devices:
        print(device.rank_id, device.device_id, table.size)


def _pair(text: str) -> Tuple[int, str]:
    match = re.fullmatch(r"([0-9]{1,5})=(\S+)", text, re.ASCII)
    if not match:
        raise UserError(f"make: got {shown(text)}, takes DEVICE=ADDRESS, such as 0=192.168.100.101")
    return int(match[1]), match[2]


def _configured(path: str) -> List[Tuple[int, str]]:
    text = read_text(Path(path), f"--hccn_conf: {path}", "name the file, or the devices as DEVICE=ADDRESS")
    devices = re.findall(r"^\s*address_([0-9]{1,5})\s*=\s*(\S+)", text, re.MULTILINE)
    if not devices:
        raise UserError(f"--hccn_conf: {path} has no line such as address_0=192.168.100.101; name the devices as "
                        "DEVICE=ADDRESS")
    return sorted((int(device_id), address) for device_id, address in devices)


def _write(table: RankTable, path: str) -> None:
    try:
        if Path(path).exists():
            raise UserError(f"TABLE: {path} exists already; name another file, or remove it first")
        write_text(Path(path), as_json(table))
    except OSError as error:
        raise UserError(f"TABLE: cannot write {path} ({error.strerror}); name a file in a folder that can be written") \
            from None
    _show(table)


def _show(table: RankTable) -> None:
    print(f"servers: {len(table.servers)}, ranks: {table.size}")
    for server in table.servers:
        print(printable(f"server {server.server_id}"))
        for device in server.devices:
            print(printable(f"  rank {device.rank_id}: device {device.device_id}, {device.device_ip}"))


def as_json(table: RankTable) -> str:
    """Return the text of a table's file (version 1.0), as Huawei's tools write it: every number is a string."""
    servers = [{"server_id": server.server_id,
                "device": [{name: str(value) for name, value in device._asdict().items()} for device in server.devices],
                "host_nic_ip": "reserve"} for server in table.servers]
    return json.dumps({"version": "1.0", "server_count": str(len(servers)), "server_list": servers,
                       "status": "completed"}, indent=4) + "\n"


if __name__ == "__main__":
    sys.exit(status_of(main))
