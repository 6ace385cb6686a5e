"""The ensemble of the small table, which several files of tests look at."""

import pytest
from door_tables import ROLES, door, table


@pytest.fixture
def ensemble():
    return door(table(), units="m3 m-3", **ROLES)
