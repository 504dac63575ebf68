"""Huawei's rank table: which device of which server has which rank in a distributed run.

Checked here is what the launchers and the ranks rely on: server and rank order, and that nothing appears twice. HCCL
reads the file too, and checks the rest.
"""
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Optional, Sequence, Tuple

from src.common.errors import UserError
from src.common.files import read_text
from src.settings.types import shown

_REMEDY = "take a rank table, or make one with scripts/rank_table.py"
_SHOWN_SERVERS = 8


class Device(NamedTuple):
    """An Ascend device: its number in its server, the address of its network port, and its rank."""

    device_id: int
    device_ip: str
    rank_id: int


class Server(NamedTuple):
    """A machine, named by its address or host name, and its devices by rank."""

    server_id: str
    devices: Tuple[Device, ...]


class RankTable(NamedTuple):
    """The servers of a run, in the order of the file."""

    servers: Tuple[Server, ...]

    @property
    def devices(self) -> Tuple[Device, ...]:
        """All devices; the position of a device is its rank."""
        return _by_rank(device for server in self.servers for device in server.devices)

    @property
    def size(self) -> int:
        """The world size: the number of ranks of the whole run."""
        return len(self.devices)


def read(path: str, flag: str) -> RankTable:
    """Read a rank table, which ``flag`` names.

    Raises:
        UserError: the file cannot be read or is not a valid table.
    """
    where = f"{flag}: {path}"
    try:
        document = json.loads(read_text(Path(path), where, _REMEDY))
        servers = [_server(entry) for entry in document["server_list"]]
    except KeyError as error:
        raise UserError(f"{where}: {error} is missing; {_REMEDY}") from None
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply; {_REMEDY}") from None
    except (ValueError, TypeError) as error:
        what = "JSON" if isinstance(error, json.JSONDecodeError) else "a rank table"
        raise UserError(f"{where}: is not {what} ({error}); {_REMEDY}") from None
    return _checked(servers, where)


def make(server_id: str, devices: Iterable[Tuple[int, str]], where: str = "rank table") -> RankTable:
    """Return the table of one server; ``devices`` are pairs of device id and address, in the order of the ranks."""
    ranked = tuple(Device(device_id, device_ip, rank) for rank, (device_id, device_ip) in enumerate(devices))
    return _checked([Server(server_id, ranked)], where)


def merge(tables: Sequence[RankTable], where: str = "rank table") -> RankTable:
    """Return one table of several, with the ranks numbered in the order of the tables."""
    first_rank, servers = 0, []
    for table in tables:
        for server in table.servers:
            devices = tuple(device._replace(rank_id=first_rank + device.rank_id) for device in server.devices)
            servers.append(Server(server.server_id, devices))
        first_rank += table.size
    return _checked(servers, where)


def as_json(table: RankTable) -> str:
    """Return the text of a table's file (version 1.0), as Huawei's tools write it: every number is a string."""
    servers = [{"server_id": server.server_id,
                "device": [{name: str(value) for name, value in device._asdict().items()} for device in server.devices],
                "host_nic_ip": "reserve"} for server in table.servers]
    return json.dumps({"version": "1.0", "server_count": str(len(servers)), "server_list": servers,
                       "status": "completed"}, indent=4) + "\n"


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


def _by_rank(devices: Iterable[Device]) -> Tuple[Device, ...]:
    return tuple(sorted(devices, key=lambda device: device.rank_id))


def _server(entry: Any) -> Server:
    # int(str()), because int() alone takes a boolean for a number and cuts 1.5 to 1.
    return Server(str(entry["server_id"]), _by_rank(
        Device(int(str(device["device_id"])), str(device["device_ip"]), int(str(device["rank_id"])))
        for device in entry["device"]))


def _checked(servers: Sequence[Server], where: str) -> RankTable:
    table = RankTable(tuple(servers))
    if not servers or not all(server.devices for server in servers):
        raise UserError(f"{where}: has no server, or one without a device; {_REMEDY}")
    unique = {"server_id": [server.server_id for server in servers],
              "device_ip": [device.device_ip for device in table.devices],
              **{f"device_id of server {server.server_id}": [device.device_id for device in server.devices]
                 for server in servers}}
    for name, values in unique.items():
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            raise UserError(f"{where}: {name}: {value} appears twice; give each its own")
    missing = sorted(set(range(table.size)) - {device.rank_id for device in table.devices})
    if missing:  # also where a rank appears twice
        raise UserError(f"{where}: rank_id: no device has rank {missing[0]}; give the {table.size} devices the ranks "
                        f"0 to {table.size - 1}, each once")
    return table
