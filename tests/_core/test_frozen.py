"""Assignments to an optimizer, which never changes: the error says how to make another."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from rmsprop_nb import RMSprop


def test_the_error_has_the_remedy():
    remedy = "dataclasses.replace(optimizer, learning_rate=...) makes another"
    with pytest.raises(dataclasses.FrozenInstanceError, match=rf"'learning_rate'; .*{re.escape(remedy)}.* a schedule"):
        RMSprop().learning_rate = 0.1
    with pytest.raises(
        dataclasses.FrozenInstanceError, match=r"replace\(optimizer, eps=\.\.\.\) makes another.*buffers\.$"
    ):
        RMSprop().eps = 0.1


def test_names_of_other_libraries():
    with pytest.raises(dataclasses.FrozenInstanceError, match="'lr'; here it is called 'learning_rate'"):
        RMSprop().lr = 0.1
    with pytest.raises(dataclasses.FrozenInstanceError, match="'foo'; RMSprop has the fields accumulate_steps, beta"):
        RMSprop().foo = 0.1


def test_the_remedy_goes_on_with_the_same_state():
    optimizer = RMSprop(0.1, momentum=0.9)
    x, y = np.ones(3), np.ones(3)
    state = optimizer.init(x)
    expected = RMSprop(lambda step: 0.1 if step == 0 else 0.01, momentum=0.9)
    expected_state = expected.init(y)
    for k in range(3):
        if k == 1:
            optimizer = dataclasses.replace(optimizer, learning_rate=0.01)
        optimizer.step(x, x.copy(), state)
        expected.step(y, y.copy(), expected_state)
    assert x.tolist() == y.tolist()
