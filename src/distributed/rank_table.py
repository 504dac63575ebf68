"""Huawei's rank table (version 1.0): which device of which server is which rank of a distributed run."""
import ipaddress
import json
import re
import socket
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, NoReturn, Optional, Sequence, Tuple

from src.common import text_file
from src.common.errors import UserError
from src.common.files import write_text
from src.settings.types import shown

_REMEDY = "take a rank table, or make one with scripts/rank_table.py"
_NUMBER = re.compile("[0-9]{1,5}")
_NAME = re.compile(r"[\w.:%-]{1,255}", re.ASCII)  # host names and addresses
_LONGEST_INTEGER = 20  # digits; Python refuses thousands of them, in words of its own
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
        return tuple(sorted((device for server in self.servers for device in server.devices),
                            key=lambda device: device.rank_id))

    @property
    def size(self) -> int:
        """The number of ranks of the whole run."""
        return len(self.devices)


def read(path: str, flag: str) -> RankTable:
    """Read a rank table and check all of it.

    Raises:
        UserError: the file cannot be read or is no valid table; ``flag`` is what named it.
    """
    where = f"{flag}: {path}"
    text = text_file.read(path, where, _REMEDY)
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); {_REMEDY}") from None
    return _parse(document, where)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a name stands twice in the object of {shown(pairs[0][0])}")
    return found


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def make(server_id: str, devices: Iterable[Tuple[Any, str]], where: str = "rank table") -> RankTable:
    """Return the table of one server; ``devices`` are pairs of device id and address, in the order of the ranks."""
    entries = [{"device_id": device_id, "device_ip": device_ip, "rank_id": rank}
               for rank, (device_id, device_ip) in enumerate(devices)]
    return _parse(_document([{"server_id": server_id, "device": entries}]), where)


def merge(tables: Sequence[RankTable], where: str = "rank table") -> RankTable:
    """Return one table of several, the ranks numbered in the order of the tables."""
    rank, servers = 0, []
    for table in tables:
        for server in table.servers:
            devices = [{**device._asdict(), "rank_id": rank + device.rank_id} for device in server.devices]
            servers.append({"server_id": server.server_id, "device": devices})
        rank += table.size
    return _parse(_document(servers), where)


def write(table: RankTable, path: Path) -> None:
    """Write a table as Huawei's tools do, with every number as a string."""
    servers = [{"server_id": server.server_id,
                "device": [{name: str(value) for name, value in device._asdict().items()} for device in server.devices],
                "host_nic_ip": "reserve"} for server in table.servers]
    write_text(path, json.dumps(_document(servers), indent=4) + "\n")


def server_of(table: RankTable, server_id: Optional[str] = None) -> Server:
    """Return this machine's server: the one named, or the only one, or the one with an address of this machine.

    Raises:
        UserError: there is no such server, or more than one.
    """
    names = ", ".join(server.server_id for server in table.servers[:_SHOWN_SERVERS])
    names += ", ..." * (len(table.servers) > _SHOWN_SERVERS)
    if server_id:
        found = [server for server in table.servers if server.server_id == server_id]
        if not found:
            raise UserError(f"SERVER_ID: got {shown(server_id)}, but the rank table has {names}; set it to one of "
                            "these")
        return found[0]
    if len(table.servers) == 1:
        return table.servers[0]
    found = [server for server in table.servers if _is_this_machine(server.server_id)]
    if len(found) != 1:
        which = "more than one of these" if found else "none of these"
        raise UserError(f"SERVER_ID: not set, and the rank table has the servers {names}, of which this machine is "
                        f"{which}; set SERVER_ID to this machine's")
    return found[0]


def _is_this_machine(server_id: str) -> bool:
    try:
        address = ipaddress.ip_address(server_id)
    except ValueError:
        return server_id in (socket.gethostname(), socket.getfqdn())
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((server_id, 0))  # only an address of this machine can be bound
        except OSError:
            return False
    return True


def _document(servers: list) -> Dict[str, Any]:
    return {"version": "1.0", "server_count": str(len(servers)), "server_list": servers, "status": "completed"}


def _parse(document: Any, where: str) -> RankTable:
    entries = _field(document, "server_list", list, where)
    if not entries:
        raise UserError(f"{where}: server_list: is empty; list at least one server")
    for name, wanted in (("version", "1.0"), ("status", "completed"), ("server_count", str(len(entries)))):
        got = _field(document, name, (str, int, float), where)
        if str(got) != wanted:
            meaning = f"{wanted!r}" if name != "server_count" else f"the number of servers listed, {wanted}"
            raise UserError(f"{where}: {name}: got {shown(got)}, takes {meaning}; make the table anew or mend it")
    table = RankTable(tuple(_server(entry, f"{where}: server {index}") for index, entry in enumerate(entries)))
    _check_unique("server_id", [server.server_id for server in table.servers], where)
    for server in table.servers:
        _check_unique("device_id", [device.device_id for device in server.devices], f"{where}: {server.server_id}")
    _check_unique("device_ip", [ipaddress.ip_address(device.device_ip) for device in table.devices], where)
    ranks = [device.rank_id for device in table.devices]
    _check_unique("rank_id", ranks, where)
    missing = sorted(set(range(len(ranks))) - set(ranks))
    if missing:
        raise UserError(f"{where}: rank_id: no device has rank {missing[0]}, but one has {ranks[-1]}; number the "
                        f"{len(ranks)} devices 0 to {len(ranks) - 1}")
    return table


def _server(entry: Any, where: str) -> Server:
    server_id = _field(entry, "server_id", str, where)
    if not _NAME.fullmatch(server_id):
        raise UserError(f"{where}: server_id: got {shown(server_id)}, takes the machine's address or host name")
    where = f"{where} ({server_id})"
    entries = _field(entry, "device", list, where)
    if not entries:
        raise UserError(f"{where}: device: is empty; list at least one device")
    devices = [_device(device, f"{where}, device {index}") for index, device in enumerate(entries)]
    return Server(server_id, tuple(sorted(devices, key=lambda device: device.rank_id)))


def _device(entry: Any, where: str) -> Device:
    address = _field(entry, "device_ip", str, where)
    try:
        if not _NAME.fullmatch(address):  # an IPv6 address may end with anything, as its zone
            raise ValueError(address)
        ipaddress.ip_address(address)
    except ValueError:
        raise UserError(f"{where}: device_ip: got {shown(address)}, takes the address of the device's network port, "
                        "such as 192.168.100.101; /etc/hccn.conf has it") from None
    return Device(_number(entry, "device_id", where), address, _number(entry, "rank_id", where))


def _field(entry: Any, name: str, types: Any, where: str) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if value is None:
        raise UserError(f"{where}: {name}: missing; make the table anew or mend it")
    if not isinstance(value, types) or isinstance(value, bool):
        takes = {list: "a list", str: "a string"}.get(types, "a string or a number")
        raise UserError(f"{where}: {name}: got {shown(value)}, takes {takes}")
    return value


def _number(entry: Any, name: str, where: str) -> int:
    value = _field(entry, name, (str, int), where)
    if not _NUMBER.fullmatch(str(value)):
        raise UserError(f"{where}: {name}: got {shown(value)}, takes an integer from 0 to 99999")
    return int(value)


def _check_unique(name: str, values: list, where: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise UserError(f"{where}: {name}: {value} stands there twice; give each its own")
        seen.add(value)
