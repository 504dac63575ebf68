"""Parts of the project on two ranks, one process each, without a script: see two_ranks.py."""
import json

import pytest
from distributed.jobs import outcome, two_processes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two ranks find."""
    folder = tmp_path_factory.mktemp("ranks")
    with two_processes(folder / "launch", "tests/distributed/two_ranks.py", str(folder / "found"),
                       cwd=folder) as (process, _):
        status, said, _ = outcome(process)
    assert status == 0, said
    return [json.loads((folder / f"found{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["overflow", "overflow of one"])
def test_ranks_agree_on_an_overflow_of_one(ranks, kind):
    """Rank 1 overflows in step 2: no rank updates there, and both halve the scale."""
    for found in ranks:
        # weight, scale, updates; the steps are 0.25 x momentum's 1 and 1.9
        assert found[kind] == [[0.75, 2**16, 1], [0.75, 2**15, 1], [pytest.approx(0.275), 2**15, 2]]


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_global_batch_norm_in_mixed_precision(ranks, level):
    for same in ("O0", level):
        assert ranks[0][same] == ranks[1][same]
    assert ranks[0][level] != ranks[0]["O0"]
    assert ranks[0][level] == pytest.approx(ranks[0]["O0"], rel=2e-2)


def test_representations_are_gathered_on_rank_0_alone(ranks):
    first, second = (found["representations"] for found in ranks)
    assert first["right"] and first["shape"] == [500, 3072]
    assert second["shape"] == [0, 3072]
    assert 1 < first["memory"] < 1.5
    assert second["memory"] < 0.1  # batch by batch: never the whole matrix


def test_an_image_that_one_rank_cannot_read_ends_all(ranks):
    """Of 20 images in batches of 4, each rank's turn: 0 to 3 are rank 0's, 4 to 7 rank 1's and so on, and at the end
    0 to 3 are rank 1's too, for a whole batch."""
    for row in range(20):
        of_second = row // 4 % 2
        told = [f"image {row} is torn", f"image {row} is torn"]
        if row > 3:
            told[1 - of_second] = f"rank {of_second}: {told[0]}"
        assert [found["torn"][str(row)] for found in ranks] == told
