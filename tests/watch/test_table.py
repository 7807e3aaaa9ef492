"""The ring of rows of figures: what is read is what was written, when it grows too."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.watch import table as tables

LAYOUT = types.SimpleNamespace(width=2, double=False)


def small_table():
    return tables.Table(LAYOUT, (3, 1), tf.distribute.get_strategy())


def write(table, steps):
    for step in steps:
        table.write(tf.constant([step, -step], "float32"), tf.constant(step, "int64"))


def assert_read(table, steps):
    found, rows = table.read()
    assert found.tolist() == list(steps)
    np.testing.assert_array_equal(rows[0], [(step, -step) for step in steps])


def test_the_last_rows_are_read_and_the_others_counted():
    table = small_table()
    write(table, range(5))
    assert_read(table, [2, 3, 4])
    assert table.lost == 2


def test_more_rows_are_held():
    table = small_table()
    write(table, range(4))
    table.skip()
    table.hold((7, 1))
    write(table, range(4, 11))
    assert_read(table, range(4, 11))
    assert table.lost == 0


@pytest.mark.parametrize("allocation", [0, 1])
def test_a_table_that_could_not_grow_is_as_before(allocation, monkeypatch):
    table = small_table()
    write(table, range(4))
    table.skip()
    made = []

    def zeros(*args):
        if len(made) == allocation:
            raise MemoryError
        made.append(args)
        return np.zeros(*args)

    monkeypatch.setattr(tables, "np", types.SimpleNamespace(zeros=zeros, arange=np.arange, stack=np.stack))
    with pytest.raises(MemoryError):
        table.hold((7, 1))
    write(table, range(4, 7))
    assert_read(table, range(4, 7))
    assert table.lost == 0
