"""The keeping of CUDA graphs, with doubles for CUDA: what is recorded, held against what, and given up."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from ball_features.extraction.engine import cuda as graphs
from ball_features.extraction.engine.cuda import GRAPH_FROM, MOST_GRAPHS, Graphs


@pytest.fixture
def cuda(monkeypatch):
    """A `torch.cuda` whose captures replay what ran in them ("right"), nothing ("empty"), or fail ("full")."""
    state = SimpleNamespace(kind="right", ran=[], captured=0, replayed=0, stream="default")

    class CUDAGraph:
        def replay(self):
            state.replayed += 1
            self.again()

    @contextlib.contextmanager
    def graph(own, pool, stream, capture_error_mode):
        state.stream, state.captured = "side", state.captured + 1
        if state.kind == "full":
            raise torch.OutOfMemoryError("out of memory")  # and the stream is not set back
        yield
        images, maps = state.ran[-1]
        own.again = (lambda: maps[4].copy_(work(images)[4])) if state.kind == "right" else lambda: None
        state.stream = "default"

    fake = SimpleNamespace(
        CUDAGraph=CUDAGraph,
        graph=graph,
        Stream=lambda device: SimpleNamespace(wait_stream=lambda other: None),
        stream=lambda stream: contextlib.nullcontext(),
        current_stream=lambda device: SimpleNamespace(wait_stream=lambda other: None),
        set_stream=lambda stream: setattr(state, "stream", "default"),
        device=lambda device: contextlib.nullcontext(),
        graph_pool_handle=object,
        empty_cache=lambda: None,
    )
    monkeypatch.setattr(graphs.torch, "cuda", fake)

    def work(images):
        return {4: images.flatten(2).cumsum(1) * torch.arange(1, images.shape[2] * images.shape[3] + 1)}

    def run(images, blocks):
        state.ran.append((images, work(images)))
        return state.ran[-1][1]

    state.work, state.passes = work, Graphs(run)
    return state


def noise(batch, seed=0):
    return torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_shape_that_comes_again_is_recorded_once(cuda):
    for seed in range(8):
        images = noise(5, seed)
        got = cuda.passes(images, (4,))
        assert torch.equal(got[4], cuda.work(images)[4])
        assert cuda.captured == (seed + 1 >= GRAPH_FROM)
    assert cuda.replayed == 1 + 8 - GRAPH_FROM + 1  # once to be held against the pass
    first = cuda.passes(noise(5, 20), (4,))[4]
    kept = first.clone()
    cuda.passes(noise(5, 21), (4,))
    assert torch.equal(first, kept)  # not touched by the next


def test_a_graph_that_recorded_nothing_is_left(cuda):
    """Its output is that of the images it was recorded with, whatever is put in."""
    cuda.kind = "empty"
    for seed in range(6):
        images = noise(5, seed)
        assert torch.equal(cuda.passes(images, (4,))[4], cuda.work(images)[4])
    assert cuda.captured == 1


def test_without_memory_the_pass_goes_on(cuda):
    cuda.kind = "full"
    for seed in range(6):
        images = noise(5, seed)
        assert torch.equal(cuda.passes(images, (4,))[4], cuda.work(images)[4])
        assert cuda.stream == "default"
    assert cuda.captured == 1


def test_not_every_shape_is_kept(cuda):
    for _ in range(GRAPH_FROM + 1):
        for batch in range(1, MOST_GRAPHS + 4):
            assert torch.equal(cuda.passes(noise(batch), (4,))[4], cuda.work(noise(batch))[4])
    assert cuda.captured == MOST_GRAPHS
