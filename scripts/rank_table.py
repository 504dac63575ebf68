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
import re
import sys
from pathlib import Path
from typing import List, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.common.errors import UserError, printable
from src.common.files import read_text, write_text
from src.common.script import status_of
from src.distributed import rank_table
from src.settings.parsing import Parser
from src.settings.types import shown


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make, merge, check, ranks = (commands.add_parser(name) for name in ("make", "merge", "check", "ranks"))
    for command, run in ((make, _make), (merge, _merge), (check, _check), (ranks, _ranks)):
        command.set_defaults(run=run)
        command.add_argument("TABLE")
    make.add_argument("SERVER_ID")
    make.add_argument("devices", nargs="*", metavar="DEVICE=ADDRESS")
    make.add_argument("--hccn_conf")
    merge.add_argument("parts", nargs="+", metavar="PART")
    ranks.add_argument("--server_id")
    arguments = parser.parse_args()
    arguments.run(arguments)


def _make(arguments: argparse.Namespace) -> None:
    if bool(arguments.devices) == bool(arguments.hccn_conf):
        raise UserError("make: takes either devices as DEVICE=ADDRESS, such as 0=192.168.100.101, or --hccn_conf FILE")
    devices = _configured(arguments.hccn_conf) if arguments.hccn_conf else [_pair(text) for text in arguments.devices]
    _write(rank_table.make(arguments.SERVER_ID, devices, "make"), arguments.TABLE)


def _merge(arguments: argparse.Namespace) -> None:
    parts = [rank_table.read(part, "merge") for part in arguments.parts]
    _write(rank_table.merge(parts, "merge"), arguments.TABLE)


def _check(arguments: argparse.Namespace) -> None:
    _show(rank_table.read(arguments.TABLE, "check"))


def _ranks(arguments: argparse.Namespace) -> None:
    table = rank_table.read(arguments.TABLE, "RANK_TABLE_FILE")
    for device in rank_table.server_of(table, arguments.server_id).devices:
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


def _write(table: rank_table.RankTable, path: str) -> None:
    try:
        if Path(path).exists():
            raise UserError(f"TABLE: {path} exists already; name another file, or remove it first")
        write_text(Path(path), rank_table.as_json(table))
    except OSError as error:
        raise UserError(f"TABLE: cannot write {path} ({error.strerror}); name a file in a folder that can be written") \
            from None
    _show(table)


def _show(table: rank_table.RankTable) -> None:
    print(f"servers: {len(table.servers)}, ranks: {table.size}")
    for server in table.servers:
        print(printable(f"server {server.server_id}"))
        for device in server.devices:
            print(printable(f"  rank {device.rank_id}: device {device.device_id}, {device.device_ip}"))


if __name__ == "__main__":
    sys.exit(status_of(main))
