"""The inverted file: planted neighbours are found, none of a query's own owner, also where centres are searched."""

import pytest
import torch

from ball_features.audit import neighbours
from ball_features.audit.neighbours import InvertedFile, nearest


def drawn(count, dim=16, copies=500, seed=0):
    """Unit vectors about centres, the last of them noisy copies of the first; owners by tens."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(200, dim, generator=generator)
    rows = centre[torch.randint(200, (count,), generator=generator)] + torch.randn(count, dim, generator=generator)
    rows[-copies:] = rows[:copies] + 0.1 * torch.randn(copies, dim, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True), torch.arange(count) // 10


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_planted_neighbours_are_found_in_few_cells_and_in_many(many, monkeypatch):
    if many:
        monkeypatch.setattr(neighbours, "_MOST_PER_CELL", 20)
        monkeypatch.setattr(neighbours, "_MOST_COMPARED", 100)
    rows, owner = drawn(20_000)
    index = InvertedFile(rows, owner=owner)
    assert (index._centres._index is not None) == many
    cosine, found = index.search(rows[-500:], 3, query_owner=owner[-500:])
    assert (found[:, 0] == torch.arange(500)).float().mean() > 0.97
    assert (cosine[:, :-1] >= cosine[:, 1:]).all()
    assert (owner[found] != owner[-500:, None])[cosine > -2].all()
    again = index.search(rows[-500:], 3, query_owner=owner[-500:], probed=index.probed[-500:])
    assert torch.equal(found, again[1])


def test_all_vectors_are_compared_where_they_share_a_cell():
    rows, owner = drawn(60, copies=5)
    cosine, found = nearest(rows, rows, 4, query_owner=owner, owner=owner)
    every = rows @ rows.T
    every[owner[:, None] == owner] = -2.0
    value, row = every.topk(4, dim=1)
    agree = (found == row).float().mean()
    assert agree > 0.5  # three cells of fifteen are searched
    assert ((cosine - value) < 1e-5).all()
