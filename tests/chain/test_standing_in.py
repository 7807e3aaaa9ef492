"""What stands in for an attribute is gone when the block ends, however it ends."""

import types

import keras
import pytest

from keras_backprop import _keras


def test_nothing_stays_of_replacements_that_could_not_all_be_made():
    owner = types.SimpleNamespace(call=lambda: "its own")
    with (
        _keras.replaced(owner, call=lambda: "outer"),
        pytest.raises(AttributeError, match="missing"),
        _keras.replaced(owner, call=lambda: "inner", missing=None),
    ):
        pass  # pragma: no cover
    assert owner.call() == "its own" and isinstance(owner.call, types.FunctionType)


def test_the_outer_replacement_holds_after_an_inner_one_was_interrupted():
    owner = types.SimpleNamespace(call=lambda: "its own")
    with _keras.replaced(owner, call=lambda: "outer"):
        with pytest.raises(KeyboardInterrupt), _keras.replaced(owner, call=lambda: "inner"):
            raise KeyboardInterrupt
        assert owner.call() == "outer"
    assert owner.call() == "its own"


def test_what_stands_in_for_an_object_counts_as_one_of_its_class():
    owner = types.SimpleNamespace(penalty=keras.regularizers.L2(0.5), call=lambda: "its own")
    with _keras.replaced(owner, penalty=abs, call=abs):
        assert isinstance(owner.penalty, keras.regularizers.L2) and owner.penalty.l2 == 0.5 and owner.penalty(-3) == 3
        assert not isinstance(owner.call, types.FunctionType)  # its code is not what runs
