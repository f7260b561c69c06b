import inspect
import re

from brigantine import errors
from brigantine.errors import BadParams, BrigantineError, FieldError


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = dict(re.findall(r"(\w+) +(\d{3} +\w+)", errors.__doc__ or ""))
    classes = inspect.getmembers(errors, lambda o: inspect.isclass(o) and issubclass(o, BrigantineError))

    assert {name: f"{cls.status}  {cls.code}" for name, cls in classes} == drawn


def test_bad_params_name_the_first_field_and_list_them_all():
    error = BadParams([FieldError("n", "at least 1", "0"), FieldError("seed", "an integer", "'x'")])

    assert error.param == "n"
    assert str(error) == "n: expected at least 1, got 0; seed: expected an integer, got 'x'"
