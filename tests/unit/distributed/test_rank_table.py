"""Rank tables: every fault is named, tables survive writing, merging numbers the ranks, and the command line."""
import copy
import json
import socket
import subprocess
import sys

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from src.common.errors import UserError
from src.distributed import rank_table

TABLES = ROOT / "tests" / "rank_tables"
TWO_SERVERS = json.loads((TABLES / "2x8p.json").read_text())


def device(document, server=1, index=0):
    return document["server_list"][server]["device"][index]


def change(*path, to):
    """Return a function that sets a value deep inside a document; ``to=None`` removes it."""
    def mutate(document):
        for key in path[:-1]:
            document = document[key]
        if to is None:
            del document[path[-1]]
        else:
            document[path[-1]] = to
    return mutate


DEVICE = ("server_list", 1, "device", 0)
FAULTS = {
    "other version": (change("version", to="0.1"), "version: got '0.1', takes '1.0'"),
    "no version": (change("version", to=None), "version: missing"),
    "not completed": (change("status", to="initializing"), "status: got 'initializing', takes 'completed'"),
    "no status": (change("status", to=None), "status: missing"),
    "server_count": (change("server_count", to="3"), "server_count: got '3', takes the number of servers listed, 2"),
    "no server_count": (change("server_count", to=None), "server_count: missing"),
    "no server_list": (change("server_list", to=None), "server_list: missing"),
    "server_list no list": (change("server_list", to={"a": 1}), "server_list: got {'a': 1}, takes a list"),
    "server no object": (change("server_list", 1, to="machine"), "server 1: server_id: missing"),
    "no server_id": (change("server_list", 1, "server_id", to=None), "server 1: server_id: missing"),
    "empty server_id": (change("server_list", 1, "server_id", to=" "), "server 1: server_id: got ' '"),
    "server_id of two lines": (change("server_list", 1, "server_id", to="a\nb"), "server 1: server_id: got 'a\\nb'"),
    "server_id twice": (change("server_list", 1, "server_id", to="10.155.111.140"),
                        "server_id: 10.155.111.140 stands there twice"),
    "no device": (change("server_list", 1, "device", to=None), "server 1 (10.155.111.141): device: missing"),
    "devices empty": (change("server_list", 1, "device", to=[]), "server 1 (10.155.111.141): device: is empty"),
    "no rank_id": (change(*DEVICE, "rank_id", to=None), "server 1 (10.155.111.141), device 0: rank_id: missing"),
    "rank_id no integer": (change(*DEVICE, "rank_id", to="8.0"), "rank_id: got '8.0', takes an integer"),
    "rank_id negative": (change(*DEVICE, "rank_id", to=-1), "rank_id: got -1, takes an integer from 0 to 99999"),
    "rank_id a boolean": (change(*DEVICE, "rank_id", to=True), "rank_id: got True, takes a string or a number"),
    "rank_id huge": (change(*DEVICE, "rank_id", to="9" * 5000), "rank_id: got '9999"),
    "rank_id twice": (change(*DEVICE, "rank_id", to="3"), "rank_id: 3 stands there twice"),
    "rank_id with a gap": (change(*DEVICE, "rank_id", to="16"),
                           "rank_id: no device has rank 8, but one has 16; number the 16 devices 0 to 15"),
    "no device_id": (change(*DEVICE, "device_id", to=None), "device_id: missing"),
    "device_id no integer": (change(*DEVICE, "device_id", to="first"), "device_id: got 'first', takes an integer"),
    "device_id twice": (change(*DEVICE, "device_id", to="1"), "10.155.111.141: device_id: 1 stands there twice"),
    "no device_ip": (change(*DEVICE, "device_ip", to=None), "device 0: device_ip: missing"),
    "device_ip no address": (change(*DEVICE, "device_ip", to="192.168.100.300"), "device_ip: got '192.168.100.300'"),
    "device_ip no string": (change(*DEVICE, "device_ip", to=7), "device_ip: got 7, takes a string"),
    "device_ip twice": (change(*DEVICE, "device_ip", to="192.168.100.101"),
                        "device_ip: 192.168.100.101 stands there twice"),
}


@pytest.mark.parametrize("mutate, message", FAULTS.values(), ids=FAULTS)
def test_every_fault_is_one_line_that_names_it(tmp_path, mutate, message):
    document = copy.deepcopy(TWO_SERVERS)
    mutate(document)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError) as error:
        rank_table.read(str(path), "RANK_TABLE_FILE")
    assert str(error.value).startswith(f"RANK_TABLE_FILE: {path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content, message", [
    (None, "cannot be read (No such file or directory)"),
    (b"", "not JSON"), (b"{", "not JSON"), (b"\xff\xfe", "is not text in UTF-8 (byte 0)"),
    (b"[]", "server_list: missing"), (b"1", "server_list: missing"),
    (b'{"version": "1.0", "server_count": 0, "server_list": [], "status": "completed"}', "server_list: is empty"),
])
def test_a_file_that_is_no_table(tmp_path, content, message):
    path = tmp_path / "table.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="^RANK_TABLE_FILE: ") as error:
        rank_table.read(str(path), "RANK_TABLE_FILE")
    assert f"{path}: {message}" in str(error.value)


@pytest.mark.parametrize("name, servers, size", [
    ("1p", 1, 1), ("2p", 1, 2), ("4p", 1, 4), ("8p", 1, 8), ("2x8p", 2, 16)])
def test_the_tables_here_are_read(name, servers, size):
    table = rank_table.read(str(TABLES / f"{name}.json"), "flag")
    assert (len(table.servers), table.size) == (servers, size)
    assert [found.rank_id for found in table.devices] == list(range(size))
    assert [found.device_id for found in table.servers[-1].devices] == list(range(size // servers))


def test_numbers_may_be_integers_and_ranks_in_any_order(tmp_path):
    document = copy.deepcopy(TWO_SERVERS)
    document["server_count"] = 2
    for server in range(2):
        for index in range(8):
            device(document, server, index).update(rank_id=15 - 8 * server - index, device_id=index)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(document))
    table = rank_table.read(str(path), "flag")
    assert [found.rank_id for found in table.devices] == list(range(16))
    assert [found.device_id for found in table.servers[0].devices] == list(range(7, -1, -1))
    assert table.devices[0].device_ip == "192.168.103.104"


counts = st.lists(st.integers(1, 8), min_size=1, max_size=6)


@given(counts=counts, data=st.data())
def test_made_and_merged_tables_survive_writing(tmp_path_factory, counts, data):
    parts = []
    for server, count in enumerate(counts):
        ids = data.draw(st.permutations(range(8)))[:count]
        parts.append(rank_table.make(f"10.0.0.{server}", [(i, f"192.168.{server}.{i}") for i in ids]))
        assert [(found.rank_id, found.device_id) for found in parts[-1].devices] == list(enumerate(ids))
    merged = rank_table.merge(parts)
    assert merged.size == sum(counts)
    assert [found.device_ip for found in merged.devices] == [it.device_ip for part in parts for it in part.devices]
    assert [server.server_id for server in merged.servers] == [f"10.0.0.{index}" for index in range(len(counts))]
    path = tmp_path_factory.mktemp("tables") / "table.json"
    rank_table.write(merged, path)
    assert rank_table.read(str(path), "flag") == merged


def test_merging_a_server_with_itself_is_an_error():
    table = rank_table.read(str(TABLES / "2p.json"), "flag")
    with pytest.raises(UserError, match="server_id: 10.155.111.140 stands there twice"):
        rank_table.merge([table, table])


def two_servers(*server_ids):
    return rank_table.merge([rank_table.make(server_id, [(0, f"192.168.{index}.1")])
                             for index, server_id in enumerate(server_ids)])


@pytest.mark.parametrize("here", ["127.0.0.1", "::1", socket.gethostname()])
def test_the_server_with_an_address_of_this_machine_is_this_one(here):
    if here == "::1" and not rank_table._is_this_machine("::1"):
        pytest.skip("no IPv6 here")
    assert rank_table.server_of(two_servers("203.0.113.1", here)).server_id == here  # RFC 5737: nobody's address


def test_a_server_that_was_named_or_is_the_only_one_is_taken():
    table = two_servers("203.0.113.1", "127.0.0.1")
    assert rank_table.server_of(table, "203.0.113.1").server_id == "203.0.113.1"
    alone = rank_table.make("203.0.113.1", [(0, "192.168.0.1")])
    assert rank_table.server_of(alone, "").server_id == "203.0.113.1"


@pytest.mark.parametrize("server_ids, chosen, message", [
    (("203.0.113.1", "other"), None, "SERVER_ID: not set, and the rank table has the servers 203.0.113.1, other, of "
                                     "which this machine is none of these; set SERVER_ID"),
    (("127.0.0.1", "127.0.0.2"), None, "of which this machine is more than one of these; set SERVER_ID"),
    (("203.0.113.1", "other"), "third", "SERVER_ID: got 'third', but the rank table has 203.0.113.1, other; set it"),
])
def test_a_server_that_is_not_clear_must_be_named(server_ids, chosen, message):
    with pytest.raises(UserError) as error:
        rank_table.server_of(two_servers(*server_ids), chosen)
    assert message in str(error.value)


def command(folder, *arguments):
    return subprocess.run([sys.executable, str(ROOT / "scripts" / "rank_table.py"), *arguments], cwd=folder,
                          capture_output=True, text=True, timeout=60)


def test_the_command_line_makes_merges_checks_and_lists(tmp_path):
    (tmp_path / "hccn.conf").write_text("address_1=192.168.1.1\nnetmask_1=255.255.255.0\naddress_0=192.168.1.0\n")
    made = command(tmp_path, "make", "a.json", "10.0.0.1", "3=192.168.0.3", "2=192.168.0.2")
    assert made.stdout.splitlines() == ["servers: 1, ranks: 2", "server 10.0.0.1",
                                        "  rank 0: device 3, 192.168.0.3", "  rank 1: device 2, 192.168.0.2"]
    assert command(tmp_path, "make", "b.json", "10.0.0.2", "--hccn_conf", "hccn.conf").returncode == 0
    assert command(tmp_path, "merge", "both.json", "a.json", "b.json").returncode == 0
    assert command(tmp_path, "check", "both.json").stdout.endswith(
        "server 10.0.0.2\n  rank 2: device 0, 192.168.1.0\n  rank 3: device 1, 192.168.1.1\n")
    ranks = command(tmp_path, "ranks", "both.json", "--server_id", "10.0.0.2")
    assert (ranks.returncode, ranks.stdout, ranks.stderr) == (0, "2 0 4\n3 1 4\n", "")


@pytest.mark.parametrize("arguments, message", [
    ([], "the following arguments are required"),
    (["frob"], "invalid choice: 'frob'"),
    (["make", "new.json", "10.0.0.1"], "make: takes either devices as DEVICE=ADDRESS"),
    (["make", "new.json", "10.0.0.1", "0=192.168.0.1", "--hccn_conf", "x"], "make: takes either devices"),
    (["make", "new.json", "10.0.0.1", "192.168.0.1"], "make: got '192.168.0.1', takes DEVICE=ADDRESS"),
    (["make", "new.json", "10.0.0.1", "0=192.168.0"], "device_ip: got '192.168.0'"),
    (["make", "new.json", "10.0.0.1", "--hccn_conf", "x"], "--hccn_conf: x: cannot be read"),
    (["make", "new.json", "10.0.0.1", "--hccn_conf", "old.json"], "--hccn_conf: old.json has no line such as"),
    (["make", "nowhere/new.json", "10.0.0.1", "0=192.168.0.1"], "TABLE: cannot write nowhere/new.json"),
    (["make", "old.json", "10.0.0.1", "0=192.168.0.1"], "TABLE: old.json exists already"),
    (["merge", "new.json", "old.json"], "merge: old.json: server_list: missing"),
    (["check", "new.json"], "check: new.json: cannot be read"),
    (["ranks", "new.json"], "RANK_TABLE_FILE: new.json: cannot be read"),
    (["ranks", str(TABLES / "8p.json"), "--server_id", "other"], "SERVER_ID: got 'other'"),
])
def test_faults_on_the_command_line(tmp_path, arguments, message):
    (tmp_path / "old.json").write_text("{}")
    result = command(tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("rank_table.py: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and not result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "{}"
