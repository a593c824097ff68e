"""Regular expressions take time in proportion to a text, whatever is in it: names and cells come from strangers."""

import importlib
import itertools
import pkgutil
import re
import time

import pytest

import ball_features

UNITS = "a 1 _ - / \\ . ( [ { a_ _1 a1 0 = | ' é 1. .. train_ p (a < a: a/ A1 _a -a 0. f [ ] x_ of fold 1- + e1".split()
UNITS += [" ", "\t", "\n", " a", "- ", "1 ", " of ", " 1"]
ENDS = (("", ""), ("a", "1"), ("", "!"), ("", "\n"), ("a", ".png"))


def patterns():
    found = {}
    for module in pkgutil.walk_packages(ball_features.__path__, "ball_features."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            values = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            )
            found |= {own: f"{module.name}.{name}" for own in values if isinstance(own, re.Pattern)}
    return found


def seconds(match, text):
    start = time.thread_time()
    match(text)
    return time.thread_time() - start


@pytest.mark.slow
def test_the_time_of_matching_grows_with_the_text_and_no_faster():
    slow = {}
    for pattern, name in patterns().items():
        binary = isinstance(pattern.pattern, bytes)
        for unit, (begin, end), match in itertools.product(UNITS, ENDS, (pattern.fullmatch, pattern.match)):

            def text(length, unit=unit, begin=begin, end=end, binary=binary):
                whole = begin + unit * (length // len(unit)) + end
                return whole.encode() if binary else whole

            if seconds(match, text(4000)) > 0.004:  # the square takes twenty times as long
                short, long = (min(seconds(match, text(length)) for _ in range(5)) for length in (2000, 8000))
                if long > 9 * short:
                    slow[name] = (pattern.pattern, unit, begin, end, long)
    assert not slow
