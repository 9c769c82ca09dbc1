"""The cases, each built once."""

from functools import cache

import pytest

from tests.curvature.cases import BUILDERS


@cache
def built(name):
    return BUILDERS[name]()


@pytest.fixture(params=BUILDERS)
def case(request):
    return built(request.param)


@pytest.fixture
def case_named():
    return built
