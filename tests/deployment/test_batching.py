"""The thread that embeds what many requests bring."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Five children, each of which ends by itself while its batcher computes.
_ENDS = """
import os, sys, threading, time
import torch
from ball_features.deployment.batching import Batcher, BusyError

torch.set_num_threads(1)
children = []
while len(children) < 5 and (child := os.fork()):
    children.append(child)
if len(children) == 5:
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
net = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(20)])

def embed(pixels, hashes):
    with torch.inference_mode():
        return net(pixels.float()).flatten(1)[:, None, :8].numpy()

batcher = Batcher(embed, size=4)

image = torch.zeros(3, 64, 64, dtype=torch.uint8)

def ask():  # calls nothing of torch's: a thread of its own that did would abort the process too
    while True:
        try:
            batcher.submit(image, "")
        except BusyError:
            time.sleep(0.001)

threading.Thread(target=ask, daemon=True).start()
time.sleep(0.3)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_ends_while_its_batcher_computes():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _ENDS], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
