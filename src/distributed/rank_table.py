"""Huawei's rank table: which device of which server has which rank in a distributed run.

Checked here is what the launchers and the ranks rely on: server and rank order, and that nothing appears twice. HCCL
reads the file too, and checks the rest.
"""
import json
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Sequence, Tuple

from src.common.errors import UserError
from src.common.files import read_text

_REMEDY = "take a rank table, or make one with scripts/rank_table.py"


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

    Raises a UserError where the file cannot be read or is not a valid table.
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
    return checked(servers, where)


def checked(servers: Sequence[Server], where: str) -> RankTable:
    """Return the table of some servers; ``where`` begins the message of what is wrong with them.

    Raises a UserError where a rank is missing, or a server, an address, a rank or a server's device appears twice.
    """
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


def _by_rank(devices: Iterable[Device]) -> Tuple[Device, ...]:
    return tuple(sorted(devices, key=lambda device: device.rank_id))


def _server(entry: Any) -> Server:
    # int(str()), because int() alone takes a boolean for a number and cuts 1.5 to 1.
    return Server(str(entry["server_id"]), _by_rank(
        Device(int(str(device["device_id"])), str(device["device_ip"]), int(str(device["rank_id"])))
        for device in entry["device"]))
