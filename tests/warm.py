"""What the process that commands are forked from has ready: modules, decoders, and the compiled pass of the CPU."""

import importlib
import pkgutil

import ball_features.cli
from ball_features.dataset import jpeg
from ball_features.extraction.engine import cpu

for module in pkgutil.iter_modules(ball_features.cli.__path__):
    importlib.import_module(f"ball_features.cli.{module.name}")
jpeg._decoders()
cpu.affine_relu_kernel()
