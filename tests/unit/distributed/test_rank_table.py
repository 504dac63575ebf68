"""Rank tables: faults are named, tables survive writing, merging numbers the ranks, and the command line."""
import copy
import json
import socket
import subprocess
import sys

import pytest
import rank_table as script
from helpers import ROOT

from src.common.errors import UserError
from src.distributed import rank_table

TABLES = ROOT / "tests" / "rank_tables"
TWO_SERVERS = json.loads((TABLES / "2x8p.json").read_text())
DEVICE = ("server_list", 1, "device", 0)


@pytest.mark.parametrize("path, value, culprit", [
    (("server_list",), [], "no server"), (("server_list", 1, "server_id"), "10.155.111.140", "server_id"),
    (("server_list", 1, "device"), [], "without a device"), ((*DEVICE, "rank_id"), 8.5, "8.5"),
    ((*DEVICE, "rank_id"), "3", "has rank 8"), ((*DEVICE, "device_id"), "1", "device_id of server 10.155.111.141"),
    ((*DEVICE, "device_ip"), "192.168.100.101", "device_ip: 192.168.100.101")])
def test_a_fault_is_one_line_that_names_it(tmp_path, path, value, culprit):
    document = copy.deepcopy(TWO_SERVERS)
    part = document
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    refused(tmp_path / "table.json", json.dumps(document), culprit)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", '{"server_list": [{}]}'])
def test_a_file_that_is_not_a_table(tmp_path, content):
    refused(tmp_path / "table.json", content, "")


def refused(file, content, culprit):
    file.write_text(content)
    with pytest.raises(UserError) as error:
        rank_table.read(str(file), "RANK_TABLE_FILE")
    message = str(error.value)
    assert message.startswith(f"RANK_TABLE_FILE: {file}: ") and culprit in message and "\n" not in message


@pytest.mark.parametrize("name, servers, size", [("8p", 1, 8), ("2x8p", 2, 16)])
def test_a_table_is_read(name, servers, size):
    table = rank_table.read(str(TABLES / f"{name}.json"), "flag")
    assert (len(table.servers), table.size) == (servers, size)
    assert [device.rank_id for device in table.devices] == list(range(size))
    assert [device.device_id for device in table.servers[-1].devices] == list(range(8))


def test_numbers_may_be_integers_and_ranks_in_any_order(tmp_path):
    document = copy.deepcopy(TWO_SERVERS)
    for number, server in enumerate(document["server_list"]):
        for index, device in enumerate(server["device"]):
            device.update(rank_id=15 - 8 * number - index, device_id=index)
    (tmp_path / "table.json").write_text(json.dumps(document))
    table = rank_table.read(str(tmp_path / "table.json"), "flag")
    assert [device.rank_id for device in table.devices] == list(range(16))
    assert [device.device_id for device in table.servers[0].devices] == list(range(7, -1, -1))
    assert table.devices[0].device_ip == "192.168.103.104"


def test_merged_tables_survive_writing_and_number_the_ranks(tmp_path):
    first = script.make("10.0.0.1", [(3, "192.168.0.3"), (2, "192.168.0.2")])
    second = script.make("10.0.0.2", [(0, "192.168.1.0")])
    merged = script.merge([first, second])
    assert merged.devices == ((3, "192.168.0.3", 0), (2, "192.168.0.2", 1), (0, "192.168.1.0", 2))
    (tmp_path / "table.json").write_text(script.as_json(merged))
    assert rank_table.read(str(tmp_path / "table.json"), "flag") == merged
    document = json.loads(script.as_json(merged))  # what Huawei's format has besides, which HCCL reads
    assert (document["version"], document["status"], document["server_count"]) == ("1.0", "completed", "2")
    with pytest.raises(UserError, match="twice"):
        script.merge([first, first])


def two_servers(*server_ids):
    return script.merge([script.make(server_id, [(0, f"192.168.{index}.1")])
                             for index, server_id in enumerate(server_ids)])


@pytest.mark.parametrize("here", ["127.0.0.1", socket.gethostname()])
def test_the_server_with_an_address_of_this_machine_is_this_one(here):
    assert script.server_of(two_servers("203.0.113.1", here)).server_id == here  # RFC 5737: nobody's address


@pytest.mark.parametrize("server_ids, chosen", [
    (("203.0.113.1", "other"), None), (("127.0.0.1", "127.0.0.2"), None), (("203.0.113.1", "other"), "third")])
def test_a_server_that_is_not_clear_must_be_named(server_ids, chosen):
    with pytest.raises(UserError, match=f"SERVER_ID: .*{server_ids[0]}, {server_ids[1]}"):
        script.server_of(two_servers(*server_ids), chosen)
    assert script.server_of(two_servers(*server_ids), server_ids[1]).server_id == server_ids[1]


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
